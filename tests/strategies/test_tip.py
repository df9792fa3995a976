from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from overtone.contracts import Address, Batch
from overtone.datasets import image_table
from overtone.datasets.image_table import LEVELS
from overtone.encoders import ImageTableEncoder, build_encoder
from overtone.errors import DataError, RecipeError
from overtone.objectives.many_positives import cosines
from overtone.rng import generator, seeded
from overtone.strategies.tip import TIP, drawn_negatives
from overtone.views import ImageTableViews
from overtone.views.image_table import of_others

B = 6


def _encoder() -> ImageTableEncoder:
    with seeded(0, "tip"):
        return ImageTableEncoder(levels=LEVELS, quantities=6, width=8, heads=2).eval()


def _method(**arguments: float) -> TIP:
    with seeded(1, "tip"):
        return TIP(_encoder(), out_dim=5, **arguments)


def _batch(cell: list[int] | None = None) -> Batch:
    data = image_table(B)
    ids = {"cell": torch.tensor(cell or [0] * B), "identity": torch.arange(B)}
    return {**data.collate([data[row] for row in range(B)]), **ids}


def _views(cell: list[int] | None = None) -> list[Batch]:
    return ImageTableViews()(_batch(cell), Address(0, 0, 0))


def test_what_stands_in_a_missing_cell_changes_nothing() -> None:
    encoder, batch = _encoder(), _batch()
    other = torch.where(batch["known"], batch["table"], 1e3 + torch.arange(10.0))
    assert not batch["known"].all()
    assert torch.equal(encoder(batch), encoder({**batch, "table": other}))
    changed = torch.where(batch["known"], batch["table"] + 1, batch["table"]).clamp(max=2)
    assert not torch.allclose(encoder(batch), encoder({**batch, "table": changed}))


def test_a_gap_is_seen_by_no_other_token_until_it_has_seen_the_picture() -> None:
    encoder, batch = _encoder(), _batch()
    known = batch["known"].clone()
    known[:, 3] = False
    rest = [0, 1, 2, 3, *range(5, 11)]  # the token of the whole, and all columns but this
    tables, whole = encoder.encode_table(batch["table"], known), encoder({**batch, "known": known})
    with torch.no_grad():
        encoder.columns[3, 0] += 1  # of the gap alone
    assert_close(encoder.encode_table(batch["table"], known)[:, rest], tables[:, rest])
    assert not torch.allclose(encoder({**batch, "known": known}), whole)


def test_a_cell_shows_what_one_who_knows_the_column_has_there() -> None:
    draw = generator(2, "tip")
    table, known = torch.randn(7, 4, generator=draw), torch.rand(7, 4, generator=draw) < 0.6
    known[:, 3] = False
    draws = torch.rand(7, 4, generator=draw)
    found = of_others(table, known, draws)
    for i in range(7):
        for column in range(3):
            knowing = [j for j in range(7) if known[j, column]]
            assert found[i, column] == table[knowing[int(draws[i, column] * len(knowing))], column]
    assert torch.equal(found[:, 3], table[:, 3])


def test_views_change_and_hide_known_cells_alone_and_as_many_as_asked_for() -> None:
    data = image_table(400)
    batch = data.collate([data[row] for row in range(400)])
    picture, changed, masked = ImageTableViews(corrupted=0.3, hidden=0.5)(batch, Address(0, 0, 0))
    known = batch["known"]
    assert "table" not in picture
    assert torch.equal(changed["known"], known)
    assert torch.equal(changed["table"][~known], batch["table"][~known])
    differs = (changed["table"] != batch["table"])[:, 4:][known[:, 4:]].float().mean()
    assert differs == pytest.approx(0.3, abs=0.05)
    assert torch.equal(masked["known"] | masked["hidden"], known)
    assert not (masked["known"] & masked["hidden"]).any()
    assert masked["hidden"].sum() / known.sum() == pytest.approx(0.5, abs=0.05)
    some = data.collate([data[7], data[3]])
    assert torch.equal(ImageTableViews()(some, Address(0, 0, 0))[2]["hidden"], masked["hidden"][[7, 3]])


def test_a_drawn_negative_is_never_barred_and_falls_by_the_softmax() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0, 0.0], [0.0, 9.0, 0.0, 0.0]])
    negatives = torch.tensor([[False, True, True, False], [False] * 4])
    with seeded(0, "tip"):
        drawn = drawn_negatives(logits.repeat(4000, 1), negatives.repeat(4000, 1)).view(-1, 2)
    assert (drawn[:, 1] == -1).all()
    assert set(drawn[:, 0].tolist()) == {1, 2}
    chances = logits[0].softmax(0) + 1e-4
    assert (drawn[:, 0] == 2).float().mean() == pytest.approx(
        float(chances[2] / chances[1:3].sum()), abs=0.03
    )


def test_naming_is_the_cross_entropy_of_clip_in_one_cell_and_a_loop_over_the_cell_in_several() -> None:
    draw = generator(3, "tip")
    z = [torch.randn(B, 5, dtype=torch.float64, generator=draw) for _ in range(2)]
    logits = F.normalize(z[0]) @ F.normalize(z[1]).T / 0.1
    own = torch.arange(B)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert_close(_method().contrast(z, _views()), expected, rtol=1e-12, atol=1e-12)
    parts = [logits[begin:end, begin:end] for begin, end in ((0, 4), (4, 6))]
    losses = [F.cross_entropy(each, own[: len(each)], reduction="sum") for p in parts for each in (p, p.T)]
    found = _method().contrast(z, _views([0] * 4 + [1] * 2))
    assert_close(found, torch.stack(losses).sum() / (2 * B), rtol=1e-12, atol=1e-12)


def test_matching_asks_of_each_true_pair_and_of_two_false_ones_of_its_cell() -> None:
    method, views = _method(), _views([0, 0, 0, 0, 1, 2])
    encoder = method.encoder
    pictures = encoder.encode_image(views[0]["image"])
    tables = encoder.encode_table(views[1]["table"], views[1]["known"])
    z = [method.image_head(pictures.mean(1)), method.table_head(tables[:, 0])]
    with seeded(5, "tip"):
        found = method.matching(pictures, tables, z, views)
    logits = cosines(*z) / 0.1
    barred = ~F.pad(1 - torch.eye(4), (0, 2, 0, 2)).bool()
    with seeded(5, "tip"):
        table, picture = drawn_negatives(logits, ~barred), drawn_negatives(logits.T, ~barred)
    total = []
    true = [(i, i, 1) for i in range(6)]
    false = [(i, int(table[i]), 0) for i in range(4)] + [(int(picture[i]), i, 0) for i in range(4)]
    for i, j, label in true + false:
        joined = encoder.joined(pictures[[i]], tables[[j]])[:, 0]
        total.append(-method.is_pair(joined)[0].log_softmax(0)[label])
    assert_close(found, torch.stack(total).mean())


def test_restoring_is_the_loop_over_the_hidden_cells_alone() -> None:
    method, view = _method(), _views()[2]
    picture = method.encoder.encode_image(_batch()["image"])
    cells = method.encoder.joined(picture, method.encoder.encode_table(view["table"], view["known"]))[:, 1:]
    begins, classes, errors = np.cumsum([0, *LEVELS[:-1]]), [], []
    for i, column in view["hidden"].nonzero().tolist():
        if column < 4:
            code = int(view["table"][i, column]) + int(begins[column])
            classes.append(-method.classes(cells[i, column]).log_softmax(0)[code])
        else:
            errors.append((method.quantity(cells[i, column])[0] - view["table"][i, column]) ** 2)
    expected = (torch.stack(classes).mean() + torch.stack(errors).mean()) / 2
    assert_close(method.restoring(picture, view), expected)
    nothing = {**view, "hidden": torch.zeros_like(view["hidden"])}
    assert method.restoring(picture, nothing).item() == 0


def test_a_step_is_the_mean_of_three_losses_and_teaches_every_part() -> None:
    views = _views()
    with seeded(6, "tip"):
        whole = _method().step(views)[0]
    with seeded(6, "tip"):
        without = _method(restore=0.0).step(views)[0]
    method = _method()
    restoring = method.restoring(method.encoder.encode_image(views[0]["image"]), views[2])
    assert_close(whole, without + restoring / 3)
    method.step(views)[0].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_alone_in_their_cells_nothing_repels_and_all_stays_finite() -> None:
    method, views = _method(), _views(list(range(B)))
    loss, z = method.step(views)
    loss.backward()  # type: ignore[no-untyped-call]
    assert method.contrast(list(z.split(B)), views).item() == 0  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_drawn_tables_belong_to_their_number_and_lack_the_share_asked_for() -> None:
    data, later = image_table(300), image_table(2, start=5)
    assert torch.equal(data[6]["table"], later[1]["table"])
    assert torch.equal(data[6]["known"], later[1]["known"])
    tables, known = (torch.stack([data[i][key] for i in range(300)]) for key in ("table", "known"))
    assert known.float().mean() == pytest.approx(0.7, abs=0.03)
    assert all(
        0 <= code < level for row in tables[:, :4].tolist() for code, level in zip(row, LEVELS, strict=True)
    )
    assert tables[:, 4:].mean(0).abs().max() < 0.3
    assert image_table(20, missing=(0.0, 0.0))[3]["known"].all()


def test_the_encoder_is_built_again_from_what_files_say_of_it() -> None:
    assert type(build_encoder(**(_encoder().spec or {}))) is ImageTableEncoder
    assert build_encoder(**(_encoder().spec or {})).state_dict().keys() == _encoder().state_dict().keys()


def test_what_it_cannot_use_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.name=image_table"):
        TIP(build_encoder("small_cnn"))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"method\.match=-1"):
        _method(match=-1.0)
    with pytest.raises(RecipeError, match=r"views\.name=image_table"):
        _method().step(_views()[:2])
    with pytest.raises(RecipeError, match=r"encoder\.levels=\[1\]"):
        ImageTableEncoder(levels=[1], quantities=0)
    with pytest.raises(RecipeError, match=r"missing=\(0\.5, 0\.1\)"):
        image_table(3, missing=(0.5, 0.1))
    with pytest.raises(RecipeError, match=r"views\.hidden=2"):
        ImageTableViews(hidden=2.0)
    with pytest.raises(DataError, match="expected `image`, `table` or both"):
        _encoder()({"known": _batch()["known"]})
