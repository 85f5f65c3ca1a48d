"""Standard operators through which no channel can be cut, each family with its reason."""

from __future__ import annotations

from bocr_onnx.groups.rules.registry import refuse

refuse("channels enter a subgraph", "If", "Loop", "Scan", "SequenceMap")
refuse("its state mixes the channels", "CausalConvWithState", "LinearAttention")
refuse(
    "what it takes or writes is computed, entry by entry",
    *"Compress GatherElements GatherND NonMaxSuppression NonZero OneHot ReverseSequence".split(),
    *"Scatter ScatterElements ScatterND TensorScatter Unique".split(),
)
refuse("its scale is taken over all channels", "DynamicQuantizeLinear")
refuse("it pairs channels with each other", "RotaryEmbedding", "SwiGLU")
refuse("it mixes all entries of its input", "Col2Im", "DFT", "Det", "MelWeightMatrix", "STFT", "AffineGrid")
refuse("its sampling offsets are computed", "DeformConv")
refuse("it crops or pads by computed amounts", "CenterCropPad")
refuse("it works on sequences or optional values", *(
    "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty "
    "SequenceErase SequenceInsert SequenceLength SplitToSequence"
).split())  # fmt: skip
refuse("it works on text or encoded images", *(
    "ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer"
).split())  # fmt: skip
refuse("it is a loss over the classes", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
refuse("it draws random numbers", *(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"
).split())  # fmt: skip
refuse("it makes a tensor of a computed size", *(
    "BlackmanWindow EyeLike HammingWindow HannWindow Range"
).split())  # fmt: skip
refuse("the rank of its input is unknown", "Shape")
