!act_16_f32 = !nemo.act<16 : i64, f32, "none", "plain">
!act_32_f32 = !nemo.act<32 : i64, f32, "none", "plain">
!matrix_16_32_bf16 = !nemo.matrix<16 : i64, 32 : i64, bf16, "none", "plain", "plain">
!matrix_96_32_bf16 = !nemo.matrix<96 : i64, 32 : i64, bf16, "none", "plain", "plain">
!state_kv_16_i8 = !nemo.state<"kv", 16 : i64, i8>
func.func @forward(%t: !nemo.tokens) -> !act_32_f32 {
  %e = "nemo.weight"() {tensor = "embeddings.weight"} : () -> !matrix_96_32_bf16
  %x = "nemo.embed"(%t, %e) {name = "embeddings"} : (!nemo.tokens, !matrix_96_32_bf16) -> !act_32_f32
  %wk = "nemo.weight"() {tensor = "wk"} : () -> !matrix_16_32_bf16
  %k = "nemo.linear"(%x, %wk) {name = "k"} : (!act_32_f32, !matrix_16_32_bf16) -> !act_16_f32
  %v = "nemo.linear"(%x, %wk) {name = "v"} : (!act_32_f32, !matrix_16_32_bf16) -> !act_16_f32
  %kv = "nemo.read_state"() {name = "kv"} : () -> !state_kv_16_i8
  %y, %n = "nemo.attention"(%x, %k, %v, %kv) {name = "a", heads = 4 : i64, kv_heads = 2 : i64, head_dim = 8 : i64, scale = 0.5 : f64} : (!act_32_f32, !act_16_f32, !act_16_f32, !state_kv_16_i8) -> (!act_32_f32, !state_kv_16_i8)
  return %x : !act_32_f32
}
