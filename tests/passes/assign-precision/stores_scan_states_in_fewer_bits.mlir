// recipe: phase = 0
// recipe: ssm_state = 'f16'
!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!act_4_f32 = !nemo.act<4 : i64, f32, "none", "plain">
!act_96_f32 = !nemo.act<96 : i64, f32, "none", "plain">
!matrix_4_32_bf16 = !nemo.matrix<4 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_4_bf16 = !nemo.matrix<96 : i64, 4 : i64, bf16, "none", "plain", "plain">
!state_conv_288_f32 = !nemo.state<"conv", 288 : i64, f32>
!state_ssm_512_f32 = !nemo.state<"ssm", 512 : i64, f32>
!vector_4_f32 = !nemo.vector<4 : i64, f32>
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %wx = "nemo.weight"() {tensor = "wx"} : () -> !matrix_96_32_bf16
  %xbc = "nemo.linear"(%x, %wx) {name = "xbc"} : (!act_32_f32, !matrix_96_32_bf16) -> !act_96_f32
  %wt = "nemo.weight"() {tensor = "wt"} : () -> !matrix_4_32_bf16
  %dt = "nemo.linear"(%x, %wt) {name = "dt"} : (!act_32_f32, !matrix_4_32_bf16) -> !act_4_f32
  %h = "nemo.weight"() {tensor = "h"} : () -> !vector_4_f32
  %cw = "nemo.weight"() {tensor = "cw"} : () -> !matrix_96_4_bf16
  %cs = "nemo.read_state"() {name = "c"} : () -> !state_conv_288_f32
  %ss = "nemo.read_state"() {name = "s"} : () -> !state_ssm_512_f32
  %c, %cn = "nemo.conv1d"(%xbc, %cw, %cs) {name = "m"} : (!act_96_f32, !matrix_96_4_bf16, !state_conv_288_f32) -> (!act_96_f32, !state_conv_288_f32)
  %s, %sn = "nemo.ssm_scan"(%xbc, %dt, %h, %h, %h, %ss) {name = "m", heads = 4 : i64, head_dim = 8 : i64, groups = 2 : i64, state_size = 16 : i64, dt_min = 0.0 : f64} : (!act_96_f32, !act_4_f32, !vector_4_f32, !vector_4_f32, !vector_4_f32, !state_ssm_512_f32) -> (!act_32_f32, !state_ssm_512_f32)
  "nemo.update_state"(%cn) {name = "c"} : (!state_conv_288_f32) -> ()
  "nemo.update_state"(%sn) {name = "s"} : (!state_ssm_512_f32) -> ()
  return %x : !act_32_f32
}
