"""Room 09: the bits that are really used, a revival that lasts, a quantizer that cannot collapse, the balancer."""

from exercise_answers import Answer

ENTROPY = "torch.special.entr(shares).sum() / torch.log(torch.tensor(2.0))"
FRESH = "vectors[distances.argsort(descending=True)[: len(dead)]]"

WRONG = [
    Answer(1, "nats", "that is in nats", {" / torch.log(torch.tensor(2.0))": ""}),
    Answer(1, "perplexity", "that is the perplexity", {ENTROPY: "torch.special.entr(shares).sum().exp()"}),
    Answer(1, "no minus", "a minus in front", {ENTROPY: "(shares * shares.log2()).sum()"}),
    Answer(1, "no logarithm of zero", "0 · log 0", {ENTROPY: "-(shares * shares.log2()).sum()"}),
    Answer(1, "counts for shares", "divided by their sum", {"counts / counts.sum()": "counts.float()"}),
    Answer(1, "mean", "so sum", {".sum() / torch": ".mean() / torch"}),
    Answer(1, "no sum", "the entropy is their sum", {".sum() / torch": " / torch"}),
    Answer(1, "entries counted", "how often each was chosen", {ENTROPY: "torch.log2((counts > 0).sum().float())"}),
    Answer(
        2,
        "embed alone",
        "must be 0.5",
        {"    codebook.cluster_size[dead] = 0.5\n": "", "    codebook.embed_avg[dead] = 0.5 * fresh\n": ""},
    ),
    Answer(2, "sum forgotten", "sum over count", {"    codebook.embed_avg[dead] = 0.5 * fresh\n": ""}),
    Answer(2, "sum not scaled", "sum over count", {"0.5 * fresh": "fresh"}),
    Answer(2, "count forgotten", "must be 0.5", {"    codebook.cluster_size[dead] = 0.5\n": ""}),
    Answer(
        2, "count of 1", "must be 0.5", {"cluster_size[dead] = 0.5": "cluster_size[dead] = 1.0", "0.5 * fresh": "fresh"}
    ),
    Answer(2, "embed forgotten", "`embed` itself", {"\n    codebook.embed[dead] = fresh": ""}),
    Answer(2, "the nearest", "nearest to their entries", {"descending=True": "descending=False"}),
    Answer(2, "farthest from zero", "farthest from zero", {"vectors - codebook.embed[rows]": "vectors"}),
    Answer(2, "entries not looked up", "`codebook.embed[rows]`", {"codebook.embed[rows]": "codebook.embed"}),
    Answer(2, "swapped", "the two are swapped", {FRESH: FRESH + ".flip(0)"}),
    Answer(2, "one for all", "second farthest", {FRESH: "vectors[distances.argmax()]"}),
    Answer(2, "as many as vectors", "as many as are dead", {"[: len(dead)]": ""}),
    Answer(2, "the living too", "alive and must stay", {"< 0.05).nonzero()": "< 5).nonzero()"}),
    Answer(
        3, "rounded outright", "`round` is flat", {"bounded + (bounded.round() - bounded).detach()": "bounded.round()"}
    ),
    Answer(3, "nothing detached", "`round` is flat", {".detach()": ""}),
    Answer(
        3,
        "all detached",
        "detach the difference",
        {"bounded + (bounded.round() - bounded).detach()": "bounded.round().detach()"},
    ),
    Answer(3, "not rounded", "no whole numbers", {"bounded.round()": "bounded"}),
    Answer(
        3,
        "squeeze jumped over",
        "jumped over too",
        {"bounded + (bounded.round() - bounded)": "latents + (bounded.round() - latents)"},
    ),
    Answer(3, "not squeezed", "the squeeze is missing", {"reach * torch.tanh(latents)": "latents"}),
    Answer(3, "reach forgotten", "`reach` has no say", {"reach * ": ""}),
    Answer(
        3,
        "rounded before the reach",
        "before it was multiplied",
        "def round_through(latents, reach):\n"
        "    bounded = torch.tanh(latents)\n    return reach * (bounded + (bounded.round() - bounded).detach())",
    ),
    Answer(
        4, "not divided by the length", "divide each by its own length", {" / gradient.norm().clamp(min=1e-12)": ""}
    ),
    Answer(4, "weights not shares", "3/4 and 1/4", {" / sum(weights)": ""}),
    Answer(4, "the largest number", "not by its largest number", {"gradient.norm()": "gradient.abs().max()"}),
    Answer(4, "no weights", "the weights have no say", {"weight / sum(weights) * ": ""}),
    Answer(4, "equal shares", "the weights have no say", {"weight / sum(weights)": "1 / len(weights)"}),
    Answer(
        4,
        "accumulated",
        "`backward` adds to `.grad`",
        """
def balance(losses, weights, output):
    total = torch.zeros_like(output)
    for loss, weight in zip(losses, weights):
        loss.backward(retain_graph=True)
        total = total + weight / sum(weights) * output.grad / output.grad.norm()
    return total.detach()
""",
    ),
    Answer(
        4,
        "the sum divided",
        "by its own length",
        """
def balance(losses, weights, output):
    total = sum(weight / sum(weights) * loss for loss, weight in zip(losses, weights))
    (gradient,) = torch.autograd.grad(total, output)
    return 0.75 * gradient / gradient.norm()
""",
    ),
    Answer(
        4,
        "a list",
        "their sum was asked for",
        {"total = torch.zeros_like(output)": "total = []", "total = total + ": "total += [", ".clamp(min=1e-12)": "]"},
    ),
]

RIGHT = [
    Answer(
        1, "unused entries left out", "Right.", {ENTROPY: "-(shares[shares > 0] * shares[shares > 0].log2()).sum()"}
    ),
    Answer(
        4,
        "emptied between the losses",
        "Right.",
        """
def balance(losses, weights, output):
    total = torch.zeros(output.shape)
    for loss, weight in zip(losses, weights):
        output.grad = None
        loss.backward(retain_graph=True)
        total += weight / sum(weights) * output.grad / output.grad.norm()
    return total
""",
    ),
]
