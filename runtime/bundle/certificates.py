"""What a manifest says of how its files agree with the networks they were made from."""

import msgspec


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the records: immutable and strict."""


class GoldenReach(_Record, frozen=True):
    """What the golden inputs reach: channels behind ReLUs and the like.

    Attributes:
        channels: that are above 0 for one of the inputs at least.
        of: channels in all; 0 where the network has no such operator.
    """

    channels: int
    of: int

    def describe(self) -> str:
        """Say it in a line.

        >>> GoldenReach(14, 16).describe()
        'the golden inputs reach 14 of 16 channels behind ReLUs; the others are not checked by them'
        """
        if self.of == 0:
            return "the network cuts no channel off: the golden inputs reach all"
        reach = f"the golden inputs reach {self.channels} of {self.of} channels behind ReLUs"
        others = "" if self.channels == self.of else "; the others are not checked by them"
        return reach + others


class LayerParity(_Record, frozen=True):
    """How the integers of one quantized tensor differ between two runs of one table.

    The differences are those of whole runs: what an earlier layer did is in the later ones.

    Attributes:
        node: name of the tensor in the torch graph, the same in every certificate of a bundle.
        layer: path of the torch module that it comes from, "" for the network itself.
        tensor: its name in the file.
        max_lsb: largest difference, in quantization steps (least significant bits).
        mean_lsb: mean difference, in steps.
        differing: share of the integers that differ.
        sqnr_db: energy of the values over that of the differences, in dB; None if none differs.
    """

    node: str
    layer: str
    tensor: str
    max_lsb: int
    mean_lsb: float
    differing: float
    sqnr_db: float | None


class LayerCertificate(_Record, frozen=True):
    """A file held against its torch graph layer by layer.

    Attributes:
        samples: inputs compared.
        outputs_differ: share of output values at which the run that shows the inner tensors
            differs from the run that ships; 0 where it computes the same.
        layers: in the order they run.
        not_compared: tensors of the graph that the file does not hold: fused, or only moved.
        not_read: why the runtime shows none of them; None where it does.
    """

    samples: int
    outputs_differ: float
    layers: tuple[LayerParity, ...]
    not_compared: tuple[str, ...] = ()
    not_read: str | None = None


class RuntimeAgreement(_Record, frozen=True):
    """Two files made of one table for two runtimes, held against each other.

    Attributes:
        first: name of an artifact. second: name of the other.
        samples: inputs whose outputs were compared.
        mean_lsb_error: mean difference of the outputs in their quantization steps; None for floats.
        prediction_agreement: share of samples with the same argmax; None if not a classification.
        layer_samples: inputs whose inner tensors were compared.
        layers: the tensors that both files hold; their names are the first file's.
    """

    first: str
    second: str
    samples: int
    mean_lsb_error: float | None
    prediction_agreement: float | None
    layer_samples: int
    layers: tuple[LayerParity, ...]


class PartParity(_Record, frozen=True):
    """How a part of an output differs from the float32 network: what one concat joined, say.

    Attributes:
        name: which part, and the layer that it comes from.
        values: in one sample.
        sqnr_db: energy of the values over that of the differences, in dB; None if none differs.
        constant: share of the values that vary over the samples in the float32 network and never do
            in the file.
        saturated: share of the values that are at an end of what the file gives, where the float32
            network goes beyond it.
    """

    name: str
    values: int
    sqnr_db: float | None
    constant: float
    saturated: float


class Finding(_Record, frozen=True):
    """A part of an output that a file destroys; such a file is never recommended.

    Attributes:
        output: its name in the file.
        part: which part of it.
        evidence: what was measured.
        layer: to blame, by the name that ``--keep-float`` takes; "" if it was not found.
        cure: what to do.
    """

    output: str
    part: str
    evidence: str
    layer: str
    cure: str

    def describe(self) -> str:
        """Return one sentence.

        >>> Finding("y", "scores", "3.0 dB of the float network", "cat", "try X").describe()
        "output 'y', scores: 3.0 dB of the float network, from the layer 'cat'; try X"
        """
        blamed = f", from the layer '{self.layer}'" if self.layer else ""
        return f"output '{self.output}', {self.part}: {self.evidence}{blamed}; {self.cure}"


class OutputParity(_Record, frozen=True):
    """How one output of a file, run on its runtime, differs from torch.

    Attributes:
        name: in the file.
        max_abs_error: largest difference to the emitted torch graph. mean_abs_error: the mean one.
        max_lsb, mean_lsb: the same in quantization steps of the output; None for floats.
        sqnr_db: energy of the values over that of the differences, in dB; None if none differs.
        float32_sqnr_db: the same against the float32 network: what the file costs.
        graph_sqnr_db: the emitted torch graph's against the float32 network: what its precision
            costs.
        parts: of the output, where its parts differ in origin or in size.
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    max_lsb: float | None
    mean_lsb: float | None
    sqnr_db: float | None
    float32_sqnr_db: float | None
    graph_sqnr_db: float | None = None
    parts: tuple[PartParity, ...] = ()


class Parity(_Record, frozen=True):
    """How a file's outputs, run on its runtime, differ from the emitted torch graph.

    Attributes:
        samples: inputs compared.
        max_abs_error: largest difference of any output value.
        mean_abs_error: mean difference.
        mean_lsb_error: mean difference in quantization steps of the output; None for floats.
        prediction_agreement: share of samples with the same argmax; None if not a classification.
        float32_agreement: share of samples with the same argmax as the float32 network.
        runtime: what ran the file, for example "onnxruntime 1.31.1".
        layers: the same for every quantized tensor; None for files that have none.
        outputs: the same for every output.
        float_operators: kinds of operators that the runtime computes in float of an int8 file, read
            from the runtime or, for TFLite, from the file; None for other files, and where the
            runtime cannot be asked.
    """

    samples: int
    max_abs_error: float
    mean_abs_error: float
    mean_lsb_error: float | None
    prediction_agreement: float | None
    float32_agreement: float | None
    runtime: str
    layers: LayerCertificate | None = None
    outputs: tuple[OutputParity, ...] = ()
    float_operators: tuple[str, ...] | None = None
