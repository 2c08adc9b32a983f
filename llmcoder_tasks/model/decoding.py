"""Greedy answers and log-probabilities of candidates from a loaded Llama. A leaf: imports torch. Callers turn gradients off.

Rows that are computed together have prompts of one length, so nothing is padded and a text's result does not depend on its company
(beyond the last bits of floating-point sums).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache

from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.trie import ROOT, CodeTrie


def batch_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of at most `batch_size` rows of one length, shortest first."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    for length in sorted(groups):
        for start in range(0, len(groups[length]), batch_size):
            yield groups[length][start : start + batch_size]


def decode_greedy(
    model: AnswerLlama, prompts: Sequence[Sequence[int]], *, trie: CodeTrie | None, end_id: int, max_answer_tokens: int
) -> list[list[int]]:
    """The most probable next token, again and again, for prompts of one length; each answer with its end, if it came to it.

    With a trie, only tokens that lead to one of its codes are considered.
    """
    first = model.first_answer_id
    cache = DynamicCache(config=model.config)
    tokens = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    nodes = [ROOT] * len(prompts)
    for _ in range(max_answer_tokens):
        states = model.model(input_ids=tokens, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        logits = model.answer_logits(states, tokens[:, -1])
        if trie is not None:
            logits = logits.masked_fill(_forbidden(trie, nodes, logits.shape, first).to(logits.device), -torch.inf)
        chosen = (logits.argmax(-1) + first).tolist()
        for row, token in zip(rows, chosen, strict=True):
            answers[row].append(token)
        going = [position for position, token in enumerate(chosen) if token != end_id]
        if not going:
            break
        if trie is not None:
            nodes = [trie.advance(nodes[position], chosen[position]) for position in going]
        if len(going) < len(rows):
            rows = [rows[position] for position in going]
            cache.batch_select_indices(torch.tensor(going, device=model.device))
        tokens = torch.tensor([[chosen[position]] for position in going], device=model.device)
    return answers


def _forbidden(trie: CodeTrie, nodes: Sequence[int], shape: torch.Size, first: int) -> torch.Tensor:
    forbidden = torch.ones(shape, dtype=torch.bool)
    at_root = torch.tensor([node == ROOT for node in nodes])
    if bool(at_root.any()):
        # Thousands of categories may begin a code: lay them out once for all rows that stand there.
        root = torch.ones(shape[1], dtype=torch.bool)
        root[torch.tensor(trie.allowed(ROOT)) - first] = False
        forbidden[at_root] = root
    following = [(row, token - first) for row, node in enumerate(nodes) if node != ROOT for token in trie.allowed(node)]
    if following:
        rows, columns = zip(*following, strict=True)
        forbidden[rows, columns] = False
    return forbidden


@dataclass(slots=True)
class _CandidateTree:
    """The candidates of one text as a tree of shared beginnings. Node 0 is the prompt's last token."""

    tokens: list[int] = field(default_factory=list)  # of the nodes 1, 2, ...
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: list[list[tuple[int, int]]] = field(default_factory=list)  # for each candidate: (node, token that follows)

    @classmethod
    def build(cls, candidates: Sequence[Sequence[int]], end_id: int) -> _CandidateTree:
        tree = cls()
        known: dict[tuple[int, int], int] = {}
        for candidate in candidates:
            node, path = 0, []
            for token in candidate:
                path.append((node, token))
                if (node, token) not in known:
                    tree.tokens.append(token)
                    tree.parents.append(node)
                    tree.depths.append(1 + (tree.depths[node - 1] if node else 0))
                    known[node, token] = len(tree.tokens)
                node = known[node, token]
            tree.paths.append([*path, (node, end_id)])
        return tree


def score_candidates(
    model: AnswerLlama, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[Sequence[int]]], *, end_id: int
) -> list[list[float]]:
    """Log-probability (natural, at most 0) that the answer to a prompt is exactly a candidate, for prompts of one length.

    One forward pass: the prompt stands once, its candidates behind it as a tree in which each token sees the prompt and its own
    beginning alone.
    """
    trees = [_CandidateTree.build(of_text, end_id) for of_text in candidates]
    size = max(len(tree.tokens) for tree in trees)
    length = len(prompts[0])
    ids = np.zeros((len(prompts), length + size), np.int64)
    positions = np.tile(np.arange(length + size), (len(prompts), 1))
    seen = np.zeros((len(prompts), 1, length + size, length + size), bool)
    seen[:, :, :, :length] = np.tri(length + size, length, dtype=bool)
    seen |= np.eye(length + size, dtype=bool)
    for row, (prompt, tree) in enumerate(zip(prompts, trees, strict=True)):
        ids[row, : length + len(tree.tokens)] = [*prompt, *tree.tokens]
        positions[row, length : length + len(tree.tokens)] = np.array(tree.depths, np.int64) + (length - 1)
        branch = seen[row, 0, length - 1 :, length - 1 :]
        for node, parent in enumerate(tree.parents, start=1):
            branch[node] |= branch[parent]
    device = model.device
    tokens, place, mask = (torch.from_numpy(array).to(device) for array in (ids, positions, seen))
    states = model.answer_states(tokens, size + 1, position_ids=place, mask=mask)
    chances = model.answer_logits(states, tokens[:, -size - 1 :]).float().log_softmax(-1).cpu()
    return [_sum_paths(chances[row], tree.paths, model.first_answer_id) for row, tree in enumerate(trees)]


def _sum_paths(chances: torch.Tensor, paths: Sequence[Sequence[tuple[int, int]]], first: int) -> list[float]:
    if not paths:
        return []
    edges = [edge for path in paths for edge in path]
    picked = chances[[node for node, _ in edges], [token - first for _, token in edges]].double()
    owner = torch.tensor([number for number, path in enumerate(paths) for _ in path])
    return [float(value) for value in torch.zeros(len(paths), dtype=torch.double).index_add_(0, owner, picked)]
