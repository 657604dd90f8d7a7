"""The patch search against its reference implementation, and what every search must keep to."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.kernels.patch_match import Matches, PatchQuery, PatchSource, exact_search, patch_match, vote
from dreamcraft3d.kernels.reference import patch_match as reference

SIZE = 20


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    noise = torch.rand(count, 3, size, size, generator=seeded(seed))
    return F.avg_pool2d(noise, 5, 1, 2, count_include_pad=False).permute(0, 2, 3, 1).contiguous()


def problem(size: int = SIZE, patch: int = 5) -> tuple[PatchQuery, PatchSource]:
    """Weights from 0 to 1, guides, penalties, and source patches that must not be used."""
    penalty = 0.01 * torch.rand(2, size, size, generator=seeded(1))
    penalty[torch.rand(2, size, size, generator=seeded(2)) < 0.2] = torch.inf
    source = PatchSource(smooth(2, size), 0.1 * torch.rand(2, size, size, 3, generator=seeded(3)), penalty, patch)
    weight = (torch.rand(size, size, generator=seeded(4)) - 0.2).clamp_min(0.0)
    guide = 0.1 * torch.rand(size, size, 3, generator=seeded(5))
    return PatchQuery(smooth(1, size, 6)[0], weight, guide, torch.arange(0, size * size, 2)), source


def nothing(size: int = SIZE) -> Matches:
    return Matches(torch.full((size, size), -1, dtype=torch.int32), torch.full((size, size), torch.inf))


@pytest.mark.parametrize("patch", [3, 5, 7])
def test_exact_search_equals_the_reference(patch: int) -> None:
    query, source = problem(patch=patch)
    ours, theirs = exact_search(query, source), reference.exact_search(query, source)
    torch.testing.assert_close(ours.cost, theirs.cost, rtol=1e-4, atol=1e-6)
    assert float((ours.index == theirs.index).float().mean()) > 0.99  # of equal costs rounding decides
    asked = torch.zeros(SIZE * SIZE, dtype=torch.bool)
    asked[query.centres] = True
    assert bool(((ours.index.reshape(-1) >= 0) == asked).all())


def test_a_patch_of_the_source_is_found_where_it_was() -> None:
    _, source = problem()
    plain = source.with_penalty(torch.zeros(2, SIZE, SIZE))
    centres = torch.tensor([5 * SIZE + 6, 11 * SIZE + 9])
    query = PatchQuery(source.images[1], torch.ones(SIZE, SIZE), source.guide[1], centres)
    found = exact_search(query, plain)
    assert found.index.reshape(-1)[centres].tolist() == [SIZE * SIZE + int(c) for c in centres]
    assert float(found.cost.reshape(-1)[centres].max()) == 0.0


def test_weights_guides_and_penalties_decide_between_patches() -> None:
    images = torch.zeros(1, 3, 9, 3)
    images[:, :, 3:6] = 0.5
    images[:, :, 6:] = 1.0
    guide, penalty = torch.zeros(1, 3, 9, 1), torch.zeros(1, 3, 9)
    grey = PatchQuery(torch.full((3, 3, 3), 0.45), torch.ones(3, 3), torch.zeros(3, 3, 1), torch.tensor([4]))

    def chosen(query: PatchQuery, source: PatchSource) -> int:
        return int(exact_search(query, source).index[1, 1]) % 9

    source = PatchSource(images, guide, penalty, 3)
    assert chosen(grey, source) == 4
    forbidden = penalty.clone()
    forbidden[..., 4] = torch.inf
    assert chosen(grey, source.with_penalty(forbidden)) != 4
    far = guide.clone()
    far[..., :7, :] = 2.0
    assert chosen(grey, PatchSource(images, far, penalty, 3)) == 7
    white = grey.image.clone()
    white[0, 0] = 1.0
    weight = torch.full((3, 3), 1e-3)
    weight[0, 0] = 1.0
    assert chosen(PatchQuery(white, weight, grey.guide, grey.centres), source) == 7


def test_patch_match_finds_a_shifted_image_and_says_what_its_matches_cost() -> None:
    """A shift is what it is good at: one patch that is found brings its neighbours along."""
    images = smooth(2, 32)
    source = PatchSource(images, 0.1 * images, torch.zeros(2, 32, 32), 5)
    image = images[1].roll((3, 5), (0, 1))
    inner = torch.zeros(32, 32, dtype=torch.bool)
    inner[6:28, 8:28] = True
    query = PatchQuery(image, torch.ones(32, 32), 0.1 * image, torch.nonzero(inner.reshape(-1)).squeeze(1))
    found, here = patch_match(query, source, nothing(32), passes=12), query.centres
    cost, index = found.cost.reshape(-1)[here], found.index.reshape(-1)[here].long()
    assert float((index == here + 32 * 32 - 3 * 32 - 5).float().mean()) > 0.95
    true = reference.costs(query, source, here)[torch.arange(len(here)), index]
    torch.testing.assert_close(cost, true, rtol=1e-3, atol=1e-5)


def test_another_pass_never_makes_a_match_worse() -> None:
    query, source = problem()
    matches = patch_match(query, source, nothing(), passes=1)
    for seed in range(3):
        better = patch_match(query, source, matches, passes=1, reach=4, seed=seed)
        assert bool((better.cost <= matches.cost).all())
        matches = better


def test_results_depend_neither_on_threads_nor_on_the_run() -> None:
    query, source = problem(96)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            matches = patch_match(query, source, nothing(96), passes=2, seed=5)
            colours, _ = vote(matches, source, query.centres, torch.ones(5, 5), torch.ones(96, 96))
            results.append((matches.index, matches.cost, colours))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_another_seed_gives_other_trials() -> None:
    query, source = problem()
    one, two = (patch_match(query, source, nothing(), passes=1, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.index, two.index)


def test_votes_equal_the_reference() -> None:
    query, source = problem()
    matches = exact_search(query, source)
    window, trust = torch.rand(5, 5, generator=seeded(7)), torch.rand(SIZE, SIZE, generator=seeded(8))
    targets = torch.arange(0, SIZE * SIZE, 3)
    for ours, theirs in zip(
        vote(matches, source, targets, window, trust),
        reference.vote(matches, source, targets, window, trust),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_patches_that_agree_give_the_source_back() -> None:
    _, source = problem()
    index = torch.full((SIZE, SIZE), -1, dtype=torch.int32)
    index[4:16, 4:16] = torch.arange(SIZE * SIZE, dtype=torch.int32).reshape(SIZE, SIZE)[4:16, 4:16]
    targets = torch.tensor([8 * SIZE + 8, 10 * SIZE + 12])
    matches = Matches(index, torch.zeros(SIZE, SIZE))
    colour, total = vote(matches, source, targets, torch.ones(5, 5), torch.ones(SIZE, SIZE))
    torch.testing.assert_close(colour, source.images[0].reshape(-1, 3)[targets])
    assert total.tolist() == [25.0, 25.0]


def test_even_patches_and_parts_of_other_sizes_are_refused() -> None:
    images = torch.zeros(1, 8, 8, 3)
    with pytest.raises(ValueError, match="odd"):
        PatchSource(images, images, torch.zeros(1, 8, 8), 4)
    with pytest.raises(ValueError, match="one size"):
        PatchSource(images, images, torch.zeros(1, 8, 7), 5)
