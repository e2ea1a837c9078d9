!x = !nemo.act<64 : i64, f32, "none", "plain">
!wide = !nemo.act<128 : i64, f32, "none", "plain">
!tall = !nemo.matrix<128 : i64, 64 : i64, bf16, "none", "plain", "plain">
!narrow = !nemo.matrix<64 : i64, 128 : i64, bf16, "none", "plain", "plain">
!conv = !nemo.matrix<128 : i64, 4 : i64, bf16, "none", "plain", "plain">
!zt = !nemo.matrix<64 : i64, 64 : i64, bf16, "none", "plain", "plain">
!dtt = !nemo.matrix<4 : i64, 64 : i64, bf16, "none", "plain", "plain">
!dt = !nemo.act<4 : i64, f32, "none", "plain">
!v = !nemo.vector<4 : i64, bf16>
!cs = !nemo.state<"conv", 384 : i64, f32>
!ss = !nemo.state<"ssm", 2048 : i64, f32>
module attributes {nemo.stage = "annotated"} {
  func.func @forward(%tokens: !nemo.tokens) -> !x {
    %table = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !tall
    %x = "nemo.embed"(%tokens, %table) {name = "embeddings", precision = "float"} : (!nemo.tokens, !tall) -> !x
    %z_w = "nemo.weight"() {tensor = "layers.0.mixer.in_proj.z.weight"} : () -> !zt
    %z = "nemo.linear"(%x, %z_w) {name = "layers.0.mixer.in_proj.z", precision = "float"} : (!x, !zt) -> !x
    %b_w = "nemo.weight"() {tensor = "layers.0.mixer.in_proj.xbc.weight"} : () -> !tall
    %b = "nemo.linear"(%x, %b_w) {name = "layers.0.mixer.in_proj.xbc", precision = "float"} : (!x, !tall) -> !wide
    %t_w = "nemo.weight"() {tensor = "layers.0.mixer.in_proj.dt.weight"} : () -> !dtt
    %t = "nemo.linear"(%x, %t_w) {name = "layers.0.mixer.in_proj.dt", precision = "float"} : (!x, !dtt) -> !dt
    %c_w = "nemo.weight"() {tensor = "layers.0.mixer.conv1d.weight"} : () -> !conv
    %c_s = "nemo.read_state"() {name = "layers.0.conv_state"} : () -> !cs
    %c:2 = "nemo.conv1d"(%b, %c_w, %c_s) {name = "layers.0.mixer"} : (!wide, !conv, !cs) -> (!wide, !cs)
    "nemo.update_state"(%c#1) {name = "layers.0.conv_state"} : (!cs) -> ()
    %p_w = "nemo.weight"() {tensor = "layers.0.mixer.probe.weight"} : () -> !narrow
    %p = "nemo.linear"(%c#0, %p_w) {name = "layers.0.mixer.probe", precision = "float"} : (!wide, !narrow) -> !x
    %al = "nemo.weight"() {tensor = "layers.0.mixer.A_log"} : () -> !v
    %dd = "nemo.weight"() {tensor = "layers.0.mixer.D"} : () -> !v
    %db = "nemo.weight"() {tensor = "layers.0.mixer.dt_bias"} : () -> !v
    %s_s = "nemo.read_state"() {name = "layers.0.ssm_state"} : () -> !ss
    %s:2 = "nemo.ssm_scan"(%c#0, %t, %al, %dd, %db, %s_s) {dt_min = 0.0 : f64, groups = 1 : i64, head_dim = 16 : i64, heads = 4 : i64, name = "layers.0.mixer", state_size = 32 : i64} : (!wide, !dt, !v, !v, !v, !ss) -> (!x, !ss)
    "nemo.update_state"(%s#1) {name = "layers.0.ssm_state"} : (!ss) -> ()
    %g = "nemo.gated_rms_norm"(%s#0, %z) {eps = 1.0e-05 : f64, group_size = 64 : i64} : (!x, !x) -> !x
    %y:2 = "nemo.rms_norm"(%g, %p) {eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 1, 0>} : (!x, !x) -> (!x, !x)
    return %y#0 : !x
  }
}
