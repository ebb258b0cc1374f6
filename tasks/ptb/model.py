"""The pointer sentinel mixture model (Merity et al. 2016, arXiv:1609.07843), in its small form."""

from __future__ import annotations

from math import log
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""Hidden and cell state of the LSTM, each (batch, hidden)."""

aten = torch.ops.aten

LOGITS_AT_ONCE = 2**22
"""Vocabulary logits that exist at a time, where they need not be kept: 16 MiB in float32.

They are few enough to stay in a large cache, and many enough that the weight's gradient is rarely
read and written.
"""

EVALUATED_AT_ONCE = 128
"""How many predictions have their logits at a time in evaluation: enough for full speed."""

FLOW_STEPS = 4
"""Words in the window of `PSMM.flow`: several, so that the recurrence takes part.

More would be too many: the number of pointer scores grows with the square of the window, and they
would outweigh those of the vocabulary.
"""


class PSMM(nn.Module):
    """A language model that may copy a word of the window instead of choosing from the vocabulary.

    For each position t of a window x, with s the sentinel and j running over 1..t::

        h_t  = LSTM(drop(embedding(x_t)), h_{t-1})
        q_t  = tanh(query(drop(h_t)))
        a    = softmax([h_1 . q_t, ..., h_t . q_t, s . q_t])
        p(w) = sum_{j: x_j = w} a_j  +  a_s softmax(vocabulary(drop(h_t)))_w

    `forward` and `target_log_probabilities` consist of plain operations and can be differentiated
    any number of times. `loss` is the same function for training: several times faster, but
    differentiable only once.

    A window has two dropout masks: one on the embeddings, and one on the hidden states that query
    and vocabulary read. The recurrence and the hidden states that the pointer reads have none. The
    published code drops logits and the pre-activation of the query, which adds noise to the
    distribution instead of the features; this model does not. The sentinel is a parameter here;
    in the published code it is a plain tensor, which no optimizer trains.

    No width is stored: all sizes are those of the weights, so that hidden units can be removed.

    Args:
        vocabulary: number of words.
        hidden: width of the embedding and of the LSTM.
        dropout: probability of dropping a feature in training.
    """

    has_state: ClassVar[bool] = True
    """Evaluation carries the state from window to window."""

    def __init__(self, vocabulary: int, hidden: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTMCell(hidden, hidden)
        self.query = nn.Linear(hidden, hidden)
        self.vocabulary = nn.Linear(hidden, vocabulary)
        self.sentinel = nn.Parameter(torch.empty(hidden))
        self.dropout = dropout
        self._initialise()

    def _initialise(self) -> None:
        """Initialise like the published code: U(-0.1, 0.1) outside the LSTM, and zero biases."""
        for weight in (
            self.embedding.weight,
            self.query.weight,
            self.vocabulary.weight,
            self.sentinel,
        ):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.query.bias)
        nn.init.zeros_(self.vocabulary.bias)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return log p(w) for every position and word.

        Args:
            tokens: word numbers (batch, length); each prediction follows its token.
            state: initial state of the LSTM; zeros by default. The pointer only sees this window.

        Returns:
            Log-probabilities (batch, length, vocabulary), and the state after the last token.
        """
        hidden, state = self.recur(self._drop(self.embedding(tokens.t())), state)
        features = self._drop(hidden)
        attention = self._log_attention(hidden, features)
        pointer, gate = attention[..., :-1], attention[..., -1:]
        vocabulary = gate + F.log_softmax(self.vocabulary(features).transpose(0, 1), dim=-1)
        # The terms of each word are summed relative to the largest, so that nothing underflows.
        # The result does not depend on that reference, so it needs no gradient.
        index = tokens.unsqueeze(1).expand(pointer.shape)
        largest = vocabulary.detach().scatter_reduce(2, index, pointer.detach(), "amax")
        terms = (pointer - largest.gather(2, index)).exp()
        total = (vocabulary - largest).exp().scatter_add(2, index, terms)
        return largest + total.log(), state

    def target_log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Return log p(target) for every position, without the probabilities of other words.

        Criteria and evaluation use it. Without gradients, the logits of at most
        `EVALUATED_AT_ONCE` predictions exist at a time.

        Args:
            tokens: word numbers (batch, length).
            targets: the word after each token (batch, length).
            state: initial state of the LSTM; zeros by default.

        Returns:
            Log-probabilities (batch, length), and the state after the last token.
        """
        hidden, state = self.recur(self._drop(self.embedding(tokens.t())), state)
        features = self._drop(hidden)
        pointer, gate = self._target_pointer(hidden, features, tokens, targets)
        vocabulary = gate + self._target_log_softmax(features, targets.t())
        # Not logaddexp: its second derivative is NaN where no position has the target.
        return torch.stack([pointer, vocabulary]).logsumexp(0).t(), state

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of -log p(target), from a state of zeros: the training loss.

        It is the same function as ``-target_log_probabilities(tokens, targets)[0].mean()``, with
        the same dropout masks for the same random state, computed by `Recurrence` and
        `MixtureLoss`. It can be differentiated once; for second derivatives use
        `target_log_probabilities`.

        Args:
            tokens: word numbers (batch, length).
            targets: the word after each token (batch, length).

        Returns:
            A scalar, in nats per word. Its backward pass with ``create_graph=True`` raises
            RuntimeError.
        """
        lstm = self.lstm
        if any("forward" in vars(layer) for layer in (lstm, self.vocabulary)):
            # Sparse kernels replace forward passes, so those are called.
            return -self.target_log_probabilities(tokens, targets)[0].mean()
        embedded = self._drop(self.embedding(tokens.t()))
        # Under autocast, the functions written out by hand still compute in the weights' precision.
        with torch.autocast(embedded.device.type, enabled=False):
            bias = lstm.bias_ih + lstm.bias_hh
            hidden = cast(Tensor, Recurrence.apply(embedded, lstm.weight_ih, lstm.weight_hh, bias))
            features = self._drop(hidden)
            pointer, gate = self._target_pointer(hidden, features, tokens, targets)
            loss = MixtureLoss.apply(
                features.flatten(0, 1),
                self.vocabulary.weight,
                self.vocabulary.bias,
                pointer.flatten(),
                gate.flatten(),
                targets.t().flatten(),
            )
        return cast(Tensor, loss)

    def recur(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run the LSTM over a window.

        Args:
            inputs: features (length, batch, embedding).
            state: initial state; zeros by default.

        Returns:
            Hidden states (length, batch, hidden), and the state after the last step.
        """
        if state is None:
            zeros = inputs.new_zeros(inputs.shape[1], self.lstm.weight_hh.shape[1])
            state = (zeros, zeros)
        hidden = []
        for step in inputs.unbind(0):
            state = self.lstm(step, state)
            hidden.append(state[0])
        return torch.stack(hidden), state

    def dropped(self, shape: torch.Size) -> Tensor:
        """Draw the next dropout mask of a window: True where a feature is dropped.

        A window draws two, each (length, batch, features): for the embeddings, then for the
        hidden states.
        """
        return torch.rand(shape, device=self.sentinel.device) < self.dropout

    def _drop(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        # The backward pass keeps a boolean mask, a quarter of the size of F.dropout's.
        return features * ~self.dropped(features.shape) * (1 / (1 - self.dropout))

    def _log_attention(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Return log a (batch, length, length + 1); the last entry of a row is the sentinel's."""
        query = self.query(features).tanh()
        scores = query.transpose(0, 1) @ hidden.permute(1, 2, 0)
        future = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
        sentinel = (query @ self.sentinel).t().unsqueeze(-1)
        return F.log_softmax(torch.cat([scores, sentinel], dim=-1), dim=-1)

    def _target_pointer(
        self, hidden: Tensor, features: Tensor, tokens: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log sum_{j: x_j = target} a_j and log a_s, each (length, batch)."""
        attention = self._log_attention(hidden, features)
        elsewhere = tokens.unsqueeze(1) != targets.unsqueeze(2)
        # Not minus infinity: where no position has the target, derivatives would be NaN.
        lowest = torch.finfo(attention.dtype).min
        pointer = attention[..., :-1].masked_fill(elsewhere, lowest).logsumexp(-1)
        return pointer.t(), attention[..., -1].t()

    def _target_log_softmax(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return log softmax(vocabulary(features)) of the targets, (length, batch)."""
        rows, words = features.flatten(0, 1), targets.flatten()
        at_once = len(rows) if torch.is_grad_enabled() else EVALUATED_AT_ONCE
        pieces = [
            _log_softmax_of(self.vocabulary(row), word)
            for row, word in zip(rows.split(at_once), words.split(at_once), strict=True)
        ]
        return torch.cat(pieces).view(targets.shape)

    def flow(self) -> Tensor:
        """Return the summed vocabulary, pointer and sentinel scores for an input of ones.

        It is the objective of SynFlow (Tanaka et al. 2020, arXiv:2006.05467), for weights without
        signs. It deviates in three points, because the networks of that paper are homogeneous in
        their input and this one is not. The input is `FLOW_STEPS` times the mean word: the one-hot
        input of ones, divided by the number of words. There are no biases: because of their flow
        all weights between input and LSTM could be removed. And x / (1 + |x|) replaces tanh(x), in
        the gates too: range and slope at zero are the same, but the slope never rounds to zero, so
        that only weights on no path from the input to a score have a gradient of zero.
        """
        projected = F.linear(self.embedding.weight.mean(0), self.lstm.weight_ih)
        hidden = cell = projected.new_zeros(self.lstm.weight_hh.shape[1])
        states = []
        for _ in range(FLOW_STEPS):
            i, f, g, o = (projected + F.linear(hidden, self.lstm.weight_hh)).chunk(4)
            i, f, o = ((1 + F.softsign(gate / 2)) / 2 for gate in (i, f, o))
            cell = f * cell + i * F.softsign(g)
            hidden = o * F.softsign(cell)
            states.append(hidden)
        read = torch.stack(states)
        query = F.softsign(F.linear(read, self.query.weight))
        pointer = (query @ read.t()).tril()
        logits = F.linear(read, self.vocabulary.weight)
        return logits.sum() + pointer.sum() + (query @ self.sentinel).sum()


def _log_softmax_of(logits: Tensor, words: Tensor) -> Tensor:
    """Return log softmax(logits) of one word for each row."""
    if logits.is_contiguous():
        return -F.cross_entropy(logits, words, reduction="none")
    # Sparse kernels leave logits transposed in memory, where a softmax would turn them first.
    chosen = logits.gather(1, words.unsqueeze(1)).squeeze(1)
    sums = logits.exp().sum(1)
    if bool(((sums > 1e-30) & (sums < 1e30)).all()):
        return chosen - sums.log()
    return chosen - logits.logsumexp(1)


def _rows_at_once(weight: Tensor) -> int:
    return max(1, LOGITS_AT_ONCE // len(weight))


def _refuse_second_derivatives() -> None:
    """Raise if the current backward pass will itself be differentiated.

    `once_differentiable` would only notice it if the incoming gradient had a history. That of a
    loss has none, so second derivatives would silently lack the terms through this function.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "PSMM.loss can be differentiated only once (create_graph is not possible): "
            "use -target_log_probabilities(...)[0].mean()"
        )


class Recurrence(torch.autograd.Function):
    """An LSTM over a window, starting from zeros; differentiable once.

    ``apply(inputs, input_weight, weight, bias)`` takes features (length, batch, embedding), the
    weights (4 hidden, embedding) and (4 hidden, hidden) and the sum of both biases (4 hidden); it
    returns the hidden states (length, batch, hidden). It is `torch.nn.LSTMCell`'s recurrence::

        [i_t, f_t, g_t, o_t] = [sigmoid, sigmoid, tanh, sigmoid](
            input_weight x_t + weight h_{t-1} + bias
        )
        c_t = f_t c_{t-1} + i_t g_t
        h_t = o_t tanh(c_t)

    Only the recurrence is computed step by step. The projection of the inputs before it and the
    gradients of the weights after it are single matrix products over all steps.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, input_weight: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Return the hidden states."""
        gates = F.linear(inputs, input_weight, bias)
        length, batch, _ = inputs.shape
        hidden, cells = inputs.new_zeros(2, length + 1, batch, weight.shape[1]).unbind()
        for t in range(length):
            i, f, g, o = gates[t].addmm_(hidden[t], weight.t()).chunk(4, dim=1)
            for gate in (i, f, o):
                gate.sigmoid_()
            g.tanh_()
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
            torch.mul(o, cells[t + 1].tanh(), out=hidden[t + 1])
        ctx.save_for_backward(inputs, gates, hidden, cells, input_weight, weight)
        return hidden[1:]

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of the inputs, of both weights and of the bias.

        With d for the derivative of the loss, from the last step to the first::

            dh_t += weight^T dgates_{t+1}
            dc_t  = dh_t o_t (1 - tanh(c_t)^2)  +  f_{t+1} dc_{t+1}
            di_t  = dc_t g_t,  df_t = dc_t c_{t-1},  dg_t = dc_t i_t,  do_t = dh_t tanh(c_t)
            dgates_t = these, through the derivatives of sigmoid and tanh
            dx_t  = input_weight^T dgates_t
            dinput_weight = sum_t dgates_t x_t^T,  dweight = sum_t dgates_t h_{t-1}^T
        """
        _refuse_second_derivatives()
        inputs, gates, hidden, cells, input_weight, weight = ctx.saved_tensors
        d_gates = torch.empty_like(gates)
        from_next_h, from_next_c = torch.zeros_like(cells[:2]).unbind()
        for t in reversed(range(len(gates))):
            i, f, g, o = gates[t].chunk(4, dim=1)
            tanh = cells[t + 1].tanh()
            d_h = d_hidden[t] + from_next_h
            d_c = aten.tanh_backward(d_h * o, tanh) + from_next_c
            d_i, d_f, d_g, d_o = d_gates[t].chunk(4, dim=1)
            aten.sigmoid_backward(d_c * g, i, grad_input=d_i)
            aten.sigmoid_backward(d_c * cells[t], f, grad_input=d_f)
            aten.tanh_backward(d_c * i, g, grad_input=d_g)
            aten.sigmoid_backward(d_h * tanh, o, grad_input=d_o)
            from_next_h, from_next_c = d_gates[t] @ weight, d_c * f
        rows = d_gates.flatten(0, 1)
        d_input_weight = rows.t() @ inputs.flatten(0, 1)
        d_weight = rows.t() @ hidden[:-1].flatten(0, 1)
        return d_gates @ input_weight, d_input_weight, d_weight, rows.sum(0)


class MixtureLoss(torch.autograd.Function):
    """The mean of -log(m + g softmax(l)_y), with l = weight h + bias; differentiable once.

    ``apply(features, weight, bias, pointer, gate, targets)`` takes, for n predictions, the
    features h (n, hidden), log m and log g (n) and the targets y (n), and returns a scalar.
    With r = g softmax(l)_y / (m + g softmax(l)_y), the vocabulary's share in the prediction::

        d l_w = r (softmax(l)_w - [w = y]),   d log m = r - 1,   d log g = -r,   each / n

    These only depend on the logits, so the forward pass computes all gradients as well, a few rows
    at a time: three matrix products in all, and the logits never leave the cache. The backward
    pass scales the gradients by the incoming scalar.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        pointer: Tensor,
        gate: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Return the loss and keep its gradients."""
        rows = _rows_at_once(weight)
        logits_buffer = features.new_empty(min(rows, len(features)), len(weight))
        softmax_buffer = torch.empty_like(logits_buffer)
        d_features = torch.empty_like(features)
        # Transposed, because (hidden x rows) (rows x words) is faster than its transpose.
        d_weight = weight.new_zeros(weight.shape[::-1])
        d_bias = torch.zeros_like(bias)
        share = torch.empty_like(pointer)
        loss = features.new_zeros(())
        for start in range(0, len(features), rows):
            chunk = slice(start, start + rows)
            h, y = features[chunk], targets[chunk].unsqueeze(1)
            logits, softmax = logits_buffer[: len(h)], softmax_buffer[: len(h)]
            torch.addmm(bias, h, weight.t(), out=logits)
            torch.softmax(logits, dim=1, out=softmax)
            log_softmax = softmax.gather(1, y).squeeze(1).log()
            # In a few rows the probability of the target underflows.
            lost = log_softmax < log(torch.finfo(softmax.dtype).tiny)
            if lost.any():
                log_softmax[lost] = -F.cross_entropy(logits[lost], y[lost, 0], reduction="none")
            vocabulary = gate[chunk] + log_softmax
            log_p = torch.logaddexp(pointer[chunk], vocabulary)
            loss -= log_p.sum()
            share[chunk] = r = (vocabulary - log_p).exp()
            d_logits = softmax.scatter_add_(1, y, -torch.ones_like(h[:, :1]))
            torch.mm(d_logits, weight, out=d_features[chunk]).mul_(r.unsqueeze(1))
            d_weight.addmm_((h * r.unsqueeze(1)).t(), d_logits)
            d_bias.addmv_(d_logits.t(), r)
        ctx.save_for_backward(d_features, d_weight, d_bias, share - 1, -share)
        return loss.div(len(features))

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Return the kept gradients, scaled."""
        _refuse_second_derivatives()
        d_features, d_weight, d_bias, d_pointer, d_gate = ctx.saved_tensors
        scale = d_loss / len(d_features)
        # Written in the weight's own layout: autograd would copy any other.
        d_weight = torch.mul(d_weight.t(), scale, out=d_weight.new_empty(d_weight.shape[::-1]))
        others = (gradient * scale for gradient in (d_bias, d_pointer, d_gate))
        return (d_features * scale, d_weight, *others, None)
