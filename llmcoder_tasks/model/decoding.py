"""Greedy answers and log-probabilities of candidates from a loaded Llama. A leaf: imports torch. Callers turn gradients off.

On a CPU, rows that are decoded together have prompts of one length, so nothing is padded. Rows that are scored together fill a room
whose shape follows from each of them alone, so that a text's log-probabilities are the same to the last bit in any company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import DynamicCache

from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.trie import ROOT, CodeTrie

MOST_TOKENS = 1 << 16
"""Tokens of prompts that are decoded together: what a GPU is full of, and no more than a small one holds."""


def batch_by_length(lengths: Sequence[int], batch_size: int, *, about: bool = False) -> Iterator[list[int]]:
    """Indices in batches of at most `batch_size` rows of one length, or of about one (an eighth less), shortest first.

    A GPU would rather pad a little than take whole notes one by one.
    """
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        step = 1 << max(0, length.bit_length() - 4) if about else 1
        groups.setdefault(-(-length // step) * step, []).append(index)
    for length in sorted(groups):
        count = max(1, min(batch_size, MOST_TOKENS // max(length, 1)))
        for start in range(0, len(groups[length]), count):
            yield groups[length][start : start + count]


def decode_greedy(
    model: AnswerLlama, prompts: Sequence[Sequence[int]], *, trie: CodeTrie | None, end_id: int, max_answer_tokens: int
) -> tuple[list[list[int]], list[float]]:
    """The most probable next token, again and again; each answer with its end, if it came to it. Shorter prompts are padded.

    With a trie, only tokens that lead to one of its codes are considered. Second, the log-probability (natural) of each answer
    among all answers, the ones that the trie forbids included: a model that is pressed into the trie is not sure.
    """
    first = model.first_answer_id
    cache = DynamicCache(config=model.config)
    tokens, seen = _pad(prompts, model.device)
    answers: list[list[int]] = [[] for _ in prompts]
    log_probabilities = [0.0] * len(prompts)
    rows = list(range(len(prompts)))
    nodes = [ROOT] * len(prompts)
    for _ in range(max_answer_tokens):
        places = None if seen is None else (seen.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        asked = {"input_ids": tokens, "attention_mask": seen, "position_ids": places}
        states = model.model(**asked, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        logits = model.answer_logits(states, tokens[:, -1])
        chosen = (logits.argmax(-1) + first).tolist() if trie is None else _choose_allowed(logits, trie, nodes, first)
        chances = logits.float().log_softmax(-1)[range(len(rows)), [token - first for token in chosen]].tolist()
        for row, token, chance in zip(rows, chosen, chances, strict=True):
            answers[row].append(token)
            log_probabilities[row] += chance
        going = [position for position, token in enumerate(chosen) if token != end_id]
        if not going:
            break
        if trie is not None:
            nodes = [trie.advance(nodes[position], chosen[position]) for position in going]
        if len(going) < len(rows):
            rows = [rows[position] for position in going]
            kept = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept)
            seen = None if seen is None else seen[kept]
        tokens = torch.tensor([[chosen[position]] for position in going], device=model.device)
        seen = None if seen is None else functional.pad(seen, (0, 1), value=1)
    return answers, log_probabilities


def _pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids [prompts, longest] with what is missing before them, and 1 where a token stands, else 0; None for one length."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    if min(map(len, prompts)) == longest:
        return tokens, None
    return tokens, torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)


def _choose_allowed(logits: torch.Tensor, trie: CodeTrie, nodes: Sequence[int], first: int) -> list[int]:
    """The most probable of the tokens that may follow each row's node."""
    chosen = [0] * len(nodes)
    at_root = [row for row, node in enumerate(nodes) if node == ROOT]
    if at_root:
        # Thousands of categories may begin a code: the same ones for all rows that stand there.
        allowed = np.array(trie.allowed(ROOT))
        columns = torch.from_numpy(allowed - first).to(logits.device)
        rows = logits if len(at_root) == len(nodes) else logits[at_root]
        for row, place in zip(at_root, rows[:, columns].argmax(-1).tolist(), strict=True):
            chosen[row] = int(allowed[place])
    inside = [row for row, node in enumerate(nodes) if node != ROOT]
    if inside:
        options = [trie.allowed(nodes[row]) for row in inside]
        width = max(map(len, options))
        table = np.array([option + option[:1] * (width - len(option)) for option in options])
        picked = logits[np.array(inside)[:, None], table - first].argmax(-1).tolist()
        for number, (row, place) in enumerate(zip(inside, picked, strict=True)):
            chosen[row] = int(table[number, place])
    return chosen


@dataclass(slots=True)
class CandidateTree:
    """The candidates of one text as a tree of shared beginnings. Node 0 is the prompt's last token; the last tokens of candidates,
    behind which nothing is asked, have no node.
    """

    tokens: list[int] = field(default_factory=list)  # of the nodes 1, 2, ...
    lineages: list[list[int]] = field(default_factory=list)  # of the nodes 1, 2, ...: themselves and their ancestors but node 0
    paths: list[list[tuple[int, int]]] = field(default_factory=list)  # for each candidate: (node, token that follows)

    @classmethod
    def build(cls, candidates: Sequence[Sequence[int]]) -> CandidateTree:
        """The tree of candidates, each a list of token ids."""
        tree = cls()
        known: dict[tuple[int, int], int] = {}
        for candidate in candidates:
            node, path = 0, []
            for position, token in enumerate(candidate):
                path.append((node, token))
                if position == len(candidate) - 1:
                    break
                following = known.get((node, token))
                if following is None:
                    tree.tokens.append(token)
                    following = known[node, token] = len(tree.tokens)
                    tree.lineages.append([*(tree.lineages[node - 1] if node else ()), following])
                node = following
            tree.paths.append(path)
        return tree


@dataclass(frozen=True, slots=True)
class Room:
    """The shape of a computation: places for a prompt, for the nodes of a tree, and how many texts it holds.

    It follows from one text alone, and a last group is filled up with copies: a text's numbers come out of the same sums, of the
    same length and in the same order, whatever is computed beside it. (Matrix products of another height may differ in last bits.)
    """

    prompt: int
    nodes: int
    texts: int

    @classmethod
    def of(cls, prompt: Sequence[int], tree: CandidateTree, most_nodes: int) -> Room:
        """The room for a text where about `most_nodes` nodes are computed together."""
        nodes = _round_up(1 + len(tree.tokens))
        return cls(_round_up(len(prompt)), nodes, max(1, most_nodes // nodes))


_STEP = 4


def _round_up(length: int) -> int:
    return -(-length // _STEP) * _STEP


def score_candidates(
    model: AnswerLlama, room: Room, prompts: Sequence[Sequence[int]], trees: Sequence[CandidateTree]
) -> list[list[float]]:
    """Log-probability (natural, at most 0) that the answer to a prompt begins with a candidate, for texts of one room.

    One forward pass: the prompt stands once, its candidates behind it as a tree in which each token sees the prompt and its own
    beginning alone.
    """
    ids, positions, seen = _lay_out(room, prompts, trees)
    device = model.device
    tokens, place, mask = (torch.from_numpy(array).to(device) for array in (ids, positions, seen))
    states = model.answer_states(tokens, room.nodes, position_ids=place, mask=mask)
    root = model.answer_logits(states[:, 0], tokens[:, room.prompt - 1]).float().log_softmax(-1).cpu().numpy()
    # Inside a code no category can stand.
    letters = model.lm_head.weight[model.first_answer_id : model.first_category_id or None]
    inner = functional.linear(states[:, 1:], letters).float().log_softmax(-1).cpu().numpy()
    first = model.first_answer_id
    return [
        [
            float(root[row, path[0][1] - first]) + sum(float(inner[row, node - 1, token - first]) for node, token in path[1:])
            for path in tree.paths
        ]
        for row, tree in enumerate(trees)
    ]


def _lay_out(
    room: Room, prompts: Sequence[Sequence[int]], trees: Sequence[CandidateTree]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Token ids, positions and who sees whom. Prompts end at one place: what stands before them is seen by nobody else."""
    length = room.prompt + room.nodes - 1
    ids = np.zeros((room.texts, length), np.int64)
    positions = np.zeros((room.texts, length), np.int64)
    seen = np.empty((room.texts, 1, length, length), bool)
    seen[:] = np.tri(length, dtype=bool) & (np.arange(length) < room.prompt)
    rows, nodes, ancestors = [], [], []
    for row in range(room.texts):
        prompt, tree = prompts[min(row, len(prompts) - 1)], trees[min(row, len(trees) - 1)]
        blank = room.prompt - len(prompt)
        ids[row, blank : room.prompt] = prompt
        ids[row, room.prompt : room.prompt + len(tree.tokens)] = tree.tokens
        positions[row, blank : room.prompt] = range(len(prompt))
        positions[row, room.prompt : room.prompt + len(tree.tokens)] = [len(prompt) - 1 + len(line) for line in tree.lineages]
        seen[row, 0, :, :blank] = False
        for node, lineage in enumerate(tree.lineages, start=1):
            rows += [row] * len(lineage)
            nodes += [node] * len(lineage)
            ancestors += lineage
    behind = room.prompt - 1
    seen[rows, 0, np.array(nodes, np.int64) + behind, np.array(ancestors, np.int64) + behind] = True
    seen |= np.eye(length, dtype=bool)
    return ids, positions, seen
