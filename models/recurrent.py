"""Recurrent classifiers of sensor sequences.

Source: Elman, "Finding structure in time", 1990 (simple recurrent network); Hochreiter,
Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers, Schmidhuber, Cummins,
"Learning to forget", 2000; Cho et al., "Learning phrase representations using RNN
encoder-decoder", 2014, section 2.3 (gated recurrent unit).
"""

from typing import Literal

from torch import Tensor, nn

_CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentClassifier(nn.Module):
    """Normalise every channel, run a recurrent layer over time, classify the mean of its states.

    Shapes: [N, T, C] -> states [N, T, hidden] -> mean over time [N, hidden] -> [N, classes].
    """

    def __init__(
        self,
        in_channels: int = 6,
        classes: int = 7,
        cell: Literal["rnn", "lstm", "gru"] = "lstm",
        hidden: int = 64,
        layers: int = 1,
    ) -> None:
        """Build ``layers`` recurrent layers of ``hidden`` units and the linear classifier."""
        super().__init__()
        self.norm = nn.BatchNorm1d(in_channels)
        self.recurrent = _CELLS[cell](in_channels, hidden, layers, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, T, C] of any length T >= 1 to logits float32 [N, classes]."""
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        states, _ = self.recurrent(x)
        logits: Tensor = self.fc(self.dropout(states.mean(1)))
        return logits
