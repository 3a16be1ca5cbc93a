"""Checkpoints by name: from the cache without a network, downloaded with one, one sentence for what may go wrong."""

from __future__ import annotations

import errno
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import DryRunError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from reference import write_reference

from musicgen_edu import MusicGen, create_musicgen_model
from musicgen_edu.checkpoints import hub
from musicgen_edu.checkpoints.hub import META, LicenceNotice, find_folder
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.reality.parity import create_reference

NAME, COMMIT = META["small"], "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the hub's of its own, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("meta")
    write_reference(create_reference({}, tokenizer.vocab_size), tokenizer, folder, "1GB")
    return folder


@pytest.fixture
def cached(folder, cache):
    """`folder` as an earlier download left it in the cache."""
    repository = cache / ("models--" + NAME.replace("/", "--"))
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_an_earlier_download_opens_without_a_network(cached, folder):
    with pytest.warns(LicenceNotice, match="CC-BY-NC 4.0"):
        by_name = MusicGen.from_pretrained(NAME)
    wanted = named_tensors(MusicGen.from_pretrained(folder))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in named_tensors(by_name).items())
    assert MusicGen.from_pretrained(NAME, revision=COMMIT).tokenizer.vocab_size == by_name.tokenizer.vocab_size


def test_a_preset_with_metas_weights(cached, folder):
    with pytest.warns(LicenceNotice):
        model = create_musicgen_model("small", pretrained=True, guidance_scale=1.5)
    assert model.config.decoder.hidden_size == 24, "the size is that of the checkpoint"
    with pytest.raises(ValueError, match="one size and one pattern: leave out num_layers, pattern"):
        create_musicgen_model("small", pretrained=True, num_layers=2, pattern="flatten")


def test_the_licence_is_named_once(cached):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            find_folder(NAME)
    assert len([each for each in caught if each.category is LicenceNotice]) == 1


def test_the_shipped_model_needs_neither_a_network_nor_a_licence_of_metas():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_musicgen_model("tiny", pretrained=True)


def raising(error: Exception, cause: Exception | None = None):
    def fake(*, dry_run=False, local_files_only=False, **wanted):
        if local_files_only:
            return snapshot_download(local_files_only=True, **wanted)
        raise error from cause

    return fake


def of_the_hub(kind: type, status: int) -> Exception:
    return kind("many\nlines", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.filterwarnings("ignore::musicgen_edu.checkpoints.hub.LicenceNotice")
@pytest.mark.parametrize(
    ("name", "error", "cause", "kind", "message"),
    [
        (NAME, DryRunError("x"), ConnectionError("no route"), ConnectionError, "the hub cannot be reached: connect"),
        ("facebook/musicgen-smal", DryRunError("x"), of_the_hub(RepositoryNotFoundError, 404), FileNotFoundError,
         "did you mean facebook/musicgen-small?"),
        ("facebook/melody", DryRunError("x"), of_the_hub(RepositoryNotFoundError, 404), FileNotFoundError,
         "did you mean facebook/musicgen-melody?"),
        ("some/thing", DryRunError("x"), of_the_hub(GatedRepoError, 403), PermissionError, "log in with `hf auth"),
        (NAME, of_the_hub(RevisionNotFoundError, 404), None, FileNotFoundError, "has no revision 'v9'"),
        (NAME, RuntimeError("the proxy\nsays no"), None, ConnectionError, "stopped (the proxy says no): run it again"),
    ],
)  # fmt: skip
def test_what_may_go_wrong_on_the_way(monkeypatch, name, error, cause, kind, message):
    monkeypatch.setattr(hub, "snapshot_download", raising(error, cause))
    with pytest.raises(kind) as caught:
        MusicGen.from_pretrained(name, revision="v9")
    assert type(caught.value) is kind and message in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_network_and_without_a_cache():
    """The hub's own client, cut off: no fake."""
    with pytest.raises(ConnectionError, match="the hub cannot be reached"):
        MusicGen.from_pretrained("some/thing")


def fake_hub(files: dict[str, int], download):
    def fake(*, dry_run=False, **wanted):
        listed = [SimpleNamespace(filename=name, file_size=size, will_download=True) for name, size in files.items()]
        return listed if dry_run else download(**wanted)

    return fake


@pytest.mark.filterwarnings("ignore::musicgen_edu.checkpoints.hub.LicenceNotice")
def test_nothing_is_downloaded_that_has_no_room_or_only_pickles(monkeypatch):
    def never(**wanted):
        pytest.fail("a download begins")

    monkeypatch.setattr(hub, "snapshot_download", fake_hub({"config.json": 9, "model.safetensors": 10**16}, never))
    with pytest.raises(OSError, match=r"needs 10,000,000,000 MB on the disk, and [\d,]+ MB are free in .*: make room"):
        MusicGen.from_pretrained(NAME)
    monkeypatch.setattr(hub, "snapshot_download", fake_hub({"config.json": 9, "tokenizer.json": 9}, never))
    with pytest.raises(ValueError, match=r"pickles only, .*AutoModelForTextToWaveform\.from_pretrained\(OLD\)"):
        MusicGen.from_pretrained(NAME)


@pytest.mark.filterwarnings("ignore::musicgen_edu.checkpoints.hub.LicenceNotice")
def test_a_download_that_succeeds_and_one_that_stops(monkeypatch, folder):
    asked = {}
    files = {"model.safetensors": 9}
    monkeypatch.setattr(hub, "snapshot_download", fake_hub(files, lambda **wanted: asked.update(wanted) or folder))
    assert find_folder(NAME, "v1") == folder
    assert asked["revision"] == "v1" and "*.bin" not in asked["allow_patterns"]

    def full(**wanted):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "snapshot_download", fake_hub(files, full))
    with pytest.raises(ConnectionError, match="stopped .*No space left.*run it again, it goes on where it was"):
        find_folder(NAME)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("source", [None, 3, b"folder", ["a/b"]])
def test_what_is_neither_a_folder_nor_a_name(source):
    with pytest.raises(TypeError, match="A checkpoint is a folder, or a name"):
        MusicGen.from_pretrained(source)
    with pytest.raises(FileNotFoundError, match="no folder nowhere"):
        MusicGen.from_pretrained("nowhere")


def test_the_line_that_converts_pickles_does(folder, tmp_path):
    """What the refusal tells the user to type, typed."""
    import transformers

    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(folder, old)
    model = transformers.MusicgenForConditionalGeneration.from_pretrained(folder)
    (old / "model.safetensors").unlink()
    torch.save(model.state_dict(), old / "pytorch_model.bin")
    with pytest.raises(ValueError) as caught:
        MusicGen.from_pretrained(old)
    line = str(caught.value).split("convert it with ")[1].rstrip(".")
    eval(line, {"transformers": transformers, "OLD": old, "NEW": new})
    wanted, found = (named_tensors(MusicGen.from_pretrained(each)) for each in (folder, new))
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())
