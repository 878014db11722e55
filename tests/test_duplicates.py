"""Near hashes against comparing all with all, groups against a plain search, and the way to the page."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.duplicate_routes import duplicate_router
from app.jobs import find_handler
from app.jobs.review import NoRecipe
from app.media_routes import media_router
from app.review_routes import review_router
from db.models import Candidate, DuplicateMember, SourceImage
from db.progress import NoProgress
from generation.masking.postprocess import perceptual_hash
from review import near_hashes
from review.duplicates import HashedCandidate, Likeness, Member, duplicate_groups, find_duplicates
from review.near_hashes import connected_groups, near_pairs, nearest
from tests.judged_material import make_candidates, new_candidate, say, user_id_of, write_images

HASH = st.integers(0, 2**64 - 1)


@st.composite
def clustered_hashes(draw):
    """Hashes of which many are a few flipped bits away from a few centres: what near-duplicates look like."""
    centres = draw(st.lists(HASH, min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=10)
    made = draw(st.lists(st.tuples(st.sampled_from(centres), flips), min_size=1, max_size=40))
    return np.array([centre ^ sum(1 << bit for bit in set(bits)) for centre, bits in made], np.uint64)


def all_pairs(left, right, most) -> dict[tuple[int, int], int]:
    bits = {(i, j): (a ^ b).bit_count() for i, a in enumerate(left.tolist()) for j, b in enumerate(right.tolist())}
    return {pair: distance for pair, distance in bits.items() if distance <= most}


def found_pairs(left, right, most) -> dict[tuple[int, int], int]:
    found = {}
    for part in near_pairs(left, right, most):
        found |= dict(zip(zip(part.left.tolist(), part.right.tolist(), strict=True), part.bits.tolist(), strict=True))
    return found


@settings(max_examples=60, deadline=None)
@given(left=clustered_hashes(), right=clustered_hashes(), most=st.integers(0, 15), dense=st.booleans())
def test_no_near_pair_is_missed_and_none_invented(left, right, most, dense):
    with pytest.MonkeyPatch.context() as patch:
        # Both ways of searching, and blocks so small that there are many.
        patch.setattr(near_hashes, "DENSE_SHARE", -1.0 if dense else float("inf"))
        patch.setattr(near_hashes, "BLOCK_PAIRS", 7)
        assert found_pairs(left, right, most) == all_pairs(left, right, most)


@settings(max_examples=40, deadline=None)
@given(hashes=clustered_hashes(), most=st.integers(0, 10))
def test_groups_are_what_can_be_reached_step_by_step(hashes, most):
    near = all_pairs(hashes, hashes, most)
    expected = []
    for start in range(len(hashes)):
        reached, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            new = {j for i, j in near if i == here} - reached
            reached |= new
            waiting += new
        expected.append(min(reached))
    assert connected_groups(hashes, most).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(left=clustered_hashes(), right=clustered_hashes(), most=st.integers(0, 12))
def test_the_nearest_is_the_nearest(left, right, most):
    skip = np.arange(len(left)) % len(right)
    place, bits = nearest(left, right, most, not_same=skip)
    for row, hash_ in enumerate(left.tolist()):
        others = [((hash_ ^ other).bit_count(), j) for j, other in enumerate(right.tolist()) if j != skip[row]]
        best = min((pair for pair in others if pair[0] <= most), default=(-1, -1))
        assert (bits[row], place[row]) == best


def test_many_hashes_are_searched_without_comparing_all():
    """20,000 random hashes and their flipped twins: the twins are found, and next to nothing else is compared."""
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**64, 20_000, dtype=np.uint64)
    twins = hashes ^ (np.uint64(0b111) << draw.integers(0, 61, len(hashes)).astype(np.uint64))
    groups = connected_groups(np.concatenate([hashes, twins]), 6)
    assert np.array_equal(groups[len(hashes) :], np.arange(len(hashes)))


def test_only_near_is_near():
    with pytest.raises(ValueError, match="0 to 15"):
        list(near_pairs(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 16))
    assert found_pairs(np.zeros(0, np.uint64), np.zeros(3, np.uint64), 6) == {}


def test_a_candidate_like_a_source_is_named_with_it():
    candidates = [
        HashedCandidate(10, 1, "a", 0b0000),
        HashedCandidate(11, 2, "b", 0b0111),  # three bits from candidate 10, and from source 1
        HashedCandidate(12, 3, "c", 0xFFFF << 40),  # like nothing but its own source
        HashedCandidate(13, 4, "d", 0xFFFF << 20),  # like nothing
    ]
    photos = {1: 0b0000, 2: 0xFF << 50, 3: (0xFFFF << 40) ^ 1, 4: 0xFFFF}
    found = find_duplicates(candidates, photos, distance=6, own_distance=2)
    assert found == [Member(10, 10, 0, 1), Member(11, 10, 3, 1), Member(12, 12, 1, 3)]
    assert find_duplicates(candidates, photos, distance=2, own_distance=0) == [Member(10, 10, 0, 1)]
    assert find_duplicates([], {}, 6, 2) == []


@pytest.fixture
def material(workspace):
    """Six candidates: 0 and 1 alike, 2 still like its own photo, 3 like the photo of 4, 5 alone."""
    draw = np.random.default_rng(1)
    photos = [np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(6)]
    looks = [int(perceptual_hash(photo), 16) for photo in photos]
    far = [value ^ 0xFFFF_FFFF for value in looks]
    hashes = [far[0], far[0] ^ 0b11, looks[2] ^ 0b1, looks[4], far[4], far[5]]
    made = make_candidates(workspace, 6, hashes=hashes)
    for candidate_id, photo in zip(made.ids, photos, strict=True):
        write_images(workspace, candidate_id, raw=photo)
    return made


def run_job(workspace, **params) -> dict:
    return find_handler("duplicates")(workspace, params, NoProgress())


def test_the_job_finds_groups_and_replaces_them(workspace, material):
    result = run_job(workspace)
    assert result["groups"] == {"all": 3, "candidates": 1, "other_source": 1, "own_source": 1}
    assert (result["candidates"], result["sources"], result["members"]) == (6, 6, 4)
    with workspace.read() as session:
        stored = [
            (row.candidate_id, row.group_id, row.distance, row.source_id is not None)
            for row in session.scalars(select(DuplicateMember).order_by(DuplicateMember.candidate_id))
        ]
    first, second, own, other = material.ids[:4]
    assert stored == [(first, first, 2, False), (second, first, 2, False), (own, own, 1, True), (other, other, 0, True)]
    assert run_job(workspace, distance=1, own_distance=0)["groups"]["all"] == 1
    assert (workspace.root / "cache/duplicates/source-hashes.npz").exists()


def test_a_missing_photo_and_a_replaced_version_do_not_stop_it(workspace, material):
    with workspace.write() as session:
        folder = workspace.path(session.get(Candidate, material.ids[3]).folder)
        source = session.get(SourceImage, session.get(Candidate, material.ids[0]).source_id)
        newer = new_candidate(source, material.recipe_id, 77, version=2, parent_id=material.ids[0])
        newer.phash = session.get(Candidate, material.ids[0]).phash
        session.add(newer)
    (folder / "raw.png").write_bytes(b"not a picture")
    result = run_job(workspace)
    assert result["sources"] == 4  # one unreadable; the new version's folder has no files
    with workspace.read() as session:
        page = duplicate_groups(session, material.recipe_id, user_id_of(workspace), likeness=Likeness.CANDIDATES)
    assert [member.item.id for group in page.groups for member in group.members] == [material.ids[1], newer.id]


def test_nothing_to_search(workspace):
    with pytest.raises(NoRecipe, match="generate"):
        run_job(workspace)


@pytest.fixture
def client(workspace, material):
    user = user_id_of(workspace, "local")
    app = FastAPI()
    for make in (duplicate_router, media_router, review_router):
        app.include_router(make(workspace, lambda: user))
    return TestClient(app)


def test_groups_are_shown_and_decided_at_once(client, workspace, material):
    assert client.get("/api/duplicates").json()["found_with"] is None
    job = client.post("/api/duplicates/find", json={"distance": 6}).json()
    assert client.post("/api/duplicates/find", json={}).json() == job, "one search at a time"
    run_job(workspace)
    status = client.get("/api/duplicates").json()
    assert status["counts"]["all"] == 3 and status["found_with"]["distance"] == 6 and status["job_id"] == job["job_id"]

    page = client.get("/api/duplicates/groups", params={"limit": 1}).json()
    (group,) = page["groups"]
    assert [member["item"]["id"] for member in group["members"]] == material.ids[:2] and group["size"] == 2
    assert [member["distance"] for member in group["members"]] == [2, 2]
    rest = client.get("/api/duplicates/groups", params={"cursor": page["cursor"]}).json()
    assert [len(group["members"]) for group in rest["groups"]] == [1, 1] and rest["cursor"] is None
    own, other = (group["members"][0]["source"] for group in rest["groups"])
    assert (own["is_own"], own["distance"], other["is_own"], other["distance"]) == (True, 1, False, 0)
    assert other["name"] == "photo_00004"

    events = [
        {
            "uuid": str(uuid.uuid4()),
            "verdict": "reject",
            "candidate_id": member["item"]["id"],
            "result_sha256": member["item"]["sha256"],
            "reasons": ["unsuitable"],
            "via": "duplicates",
        }
        for member in group["members"]
    ]
    assert {one["status"] for one in client.post("/api/review/decisions", json={"events": events}).json()} == {"stored"}
    still = client.get("/api/duplicates/groups", params={"only_open": True}).json()["groups"]
    assert [one["id"] for one in still] == material.ids[2:4]


@pytest.mark.parametrize(
    ("likeness", "firsts"), [("candidates", [0]), ("own_source", [2]), ("other_source", [3]), ("all", [0, 2, 3])]
)
def test_groups_by_likeness(client, workspace, material, likeness, firsts):
    run_job(workspace)
    say(workspace, {material.ids[2]: False}, user_id_of(workspace, "someone else"))
    groups = client.get("/api/duplicates/groups", params={"likeness": likeness}).json()["groups"]
    assert [group["id"] for group in groups] == [material.ids[first] for first in firsts]
    assert all(member["item"]["verdict"] is None for group in groups for member in group["members"]), "judged blind"


def test_wrong_requests_are_answered_with_sentences(client):
    assert "less than or equal to 15" in client.post("/api/duplicates/find", json={"distance": 16}).json()["error"]
    assert client.get("/api/duplicates/groups", params={"likeness": "hair"}).status_code == 422
    assert "generate" in client.get("/api/duplicates", params={"recipe": 99}).json()["error"]
