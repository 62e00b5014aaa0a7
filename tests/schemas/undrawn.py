"""What of com.microsoft and ai.onnx.ml is not drawn although onnxruntime's CPU provider has it, and why."""

from __future__ import annotations

# an operator -> why it has no rule; those with a test of their own are jitrt's, the others are not
OPERATORS = {
    "CastMap": "maps: tests/test_ml.py",
    "DictVectorizer": "maps: tests/test_ml.py",
    "DynamicQuantizeLSTM": "onnxruntime rounds the state to 8 bits at each step, jitrt does not: tests/test_contrib_quant.py",
    "SparseAttention": "onnxruntime wants past and present in one memory: tests/test_contrib_attention.py",
    # loops around whole decoders: exporters write the decoder alone, and programs loop (as examples/generate.py does)
    "BeamSearch": "a loop around a decoder",
    "GreedySearch": "a loop around a decoder",
    "Sampling": "a loop around a decoder",
    "WhisperBeamSearch": "a loop around a decoder",
    # what no exporter and no optimiser writes
    "AttnLSTM": "of one company's own models",
    "MaxpoolWithMask": "of one company's own models",
    "SampleOp": "onnxruntime's own tests",
    "MatMulFpQ4": "weights packed by one build of onnxruntime; MatMulNBits took its place",
    "SparseToDenseMatMul": "sparse tensors are no inputs here",
    # of a few models that appeared with this onnxruntime; no exporter of others writes them
    "EngramGate": "of the newest models alone",
    "GatedDeltaNet": "of the newest models alone",
    "GatherPacked": "of the newest models alone",
    "HyperConnectionPostMix": "of the newest models alone",
    "HyperConnectionPreMix": "of the newest models alone",
    "MoE": "of the newest models alone",
    "MoEGroupRouter": "of the newest models alone",
    "NGramHashMapping": "of the newest models alone",
    "QMoE": "of the newest models alone",
    "VarlenCausalConvWithState": "of the newest models alone",
    "VarlenNGramHashMapping": "of the newest models alone",
}
GPU, OWN = "GPUs alone", "a test of its own: onnxruntime's CPU kernel refuses it, or gives something else"
# an operator -> attributes, inputs and outputs that no case has
PARTS = {
    "Attention": {"do_rotary": GPU, "rotary_embedding_dim": GPU, "past_present_share_buffer": OWN, "past_sequence_length": OWN},
    "CausalConvWithState": dict.fromkeys(
        ("state_update_capacity", "state_channels_last", "state_window", "state_length", "input_channel_offset", "input_channels",
         "state_update"), GPU,
    ),
    "DecoderMaskedMultiHeadAttention": {"output_qk": OWN, "beam_width": OWN, "cache_indirection": OWN, "qk": OWN},
    "GatedAdd": {"gate_weight": GPU},
    "GroupQueryAttention": {
        "q_norm_weight": OWN, "k_norm_weight": OWN, "qk_norm_epsilon": OWN, "q_norm_epsilon": OWN, "k_norm_epsilon": OWN,
        "query_seqlens": OWN, "sliding_window_cache": "not supported",
    },
    "MultiHeadAttention": {"past_sequence_length": OWN, "cache_indirection": OWN, "qk": OWN},
    "QAttention": {"do_rotary": GPU, "past_present_share_buffer": GPU},
    "QLinearConv": {"kernel_shape": "the weights say it"},
    "SkipLayerNormalization": {"mean": "training", "inv_std_var": "training"},
    "SkipSimplifiedLayerNormalization": {"mean": "training", "inv_std_var": "training"},
    "TreeEnsemble": {"nodes_hitrates": "the schema says a tensor, its shape inference a list: no model can have it"},
}  # fmt: skip
