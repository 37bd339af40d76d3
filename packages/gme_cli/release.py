"""`gme release`: create, verify, reproduce, compare and publish releases. See docs/release.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gme_cli.options import Common, JsonOptions, WorkspaceOptions, print_json, say, say_plan

app = App(name="release", help="Make, verify, reproduce, compare or publish a release.", result_action="return_value")


@Parameter(name="*")
@dataclass(frozen=True)
class VerifyOptions(JsonOptions, WorkspaceOptions):
    """Options of `gme release verify`; --rescore reads the data of the workspace."""


_COMMON, _VERIFY, _JSON = Common(), VerifyOptions(), JsonOptions()
_Key = Annotated[Path | None, Parameter(name=["--key", "-k"])]


@app.command
def key(file: Path, /) -> None:
    """Make a key pair to sign with: FILE, kept secret, and FILE with the suffix .pub, for everyone."""
    from gme_release.release.signing import fingerprint, make_key

    public = make_key(file)
    say(f"{file} (keep it secret) and {public}, sha256 {fingerprint(public)}")


@app.command
def create(
    tag: str,
    /,
    *,
    key: Annotated[Path, Parameter(name=["--key", "-k"])],
    version: str | None = None,
    licence: str = "Apache-2.0",
    common: Common = _COMMON,
) -> None:
    """Bundle and sign the champion in dist/NAME-TAG/.

    Parameters
    ----------
    tag
        Tag of the release, e.g. v1.
    key
        The private key; `gme release key FILE` makes one.
    version
        Release this version of the model instead of the champion.
    licence
        SPDX expression for the weights.
    """
    from flows.chains import pipeline_chain
    from flows.release import require_same_code
    from gme_release.release.create import create_release

    pipeline = common.pipeline()
    config = pipeline.release
    if common.dry_run:
        text = f"Would release {config.model_name} {'v' + version if version else '(champion)'} as {tag}."
        say_plan(text, json=common.json)
        return
    number = version.removeprefix("v") if version else None  # as it is printed: v3
    release = create_release(
        common.workspace,
        config,
        tag,
        key,
        version=number,
        licence=licence,
        require_same_code=partial(require_same_code, pipeline_chain(pipeline)),
    )
    if common.json:
        print_json(
            {"folder": release.folder, "id": release.id, "git_tag": release.git_tag, "overall": release.record.overall}
        )
        return
    say(f"{release.folder}: {release.id}")
    say(f'Next: git tag -a "{release.git_tag}" -m {release.id[:12]} {release.record.source.commit[:12]}')
    say(f"Check it: gme release verify {release.folder}")


@app.command
def verify(folder: Path, /, *, key: _Key = None, rescore: str | None = None, common: VerifyOptions = _VERIFY) -> None:
    """Find any changed byte, a wrong signature, a missing or extra file, an edited record.

    Parameters
    ----------
    folder
        The release.
    key
        Public key of the expected signer. Without it the folder's own key is used, which proves that nothing was
        changed since somebody signed, but not who did.
    rescore
        Score the model on this task again, on the workspace's data.
    """
    from gme_release.release.verify import verify_release

    verified = verify_release(folder, key)
    result = {"id": verified.id, "files": verified.files, "key": verified.key, "trusted": verified.trusted}
    if not common.json:
        say(f"{folder}: {verified.files} files as released, record {verified.id}")
        say(
            f"signed by {verified.key}"
            + ("" if verified.trusted else " (found in the folder; give --key to be sure whose)")
        )
    if rescore is not None:
        from flows.release import rescore as score_again

        comparison = score_again(folder, verified.record, rescore, common.workspace)
        result["rescored"] = {
            "name": rescore,
            "recorded": comparison.recorded,
            "found": comparison.computed,
            "tolerance": comparison.tolerance,
        }
        if not common.json:
            say(f"{rescore}: {comparison.computed:.4f}, recorded {comparison.recorded:.4f} ± {comparison.tolerance:g}")
    if common.json:
        print_json(result)


@app.command
def reproduce(folder: Path, /, *, to: Path, key: _Key = None) -> None:
    """Train again from the record in a new workspace; data must be equal, scores within a tolerance.

    Parameters
    ----------
    folder
        The release.
    to
        The new workspace.
    key
        Public key of the expected signer.
    """
    from flows.release import reproduce as run_again
    from gme_release.release.verify import verify_release

    for score in run_again(verify_release(folder, key).record, to.resolve()):
        say(f"{score.name}: {score.computed:.4f}, recorded {score.recorded:.4f} ± {score.tolerance:g}; data are equal")


@app.command
def diff(before: Path, after: Path, /, *, common: JsonOptions = _JSON) -> None:
    """Say what differs between two releases: code, configuration, data, scores."""
    from gme_release.release.diff import diff_releases
    from gme_release.release.record import read_record

    changes = diff_releases(read_record(before), read_record(after))
    if common.json:
        print_json([asdict(change) for change in changes])
        return
    for change in changes:
        say(f"{change.what}: {change.before} -> {change.after}")
    if not changes:
        say("The same release.")


@app.command
def publish(folder: Path, /, *, to: Path, key: _Key = None) -> None:
    """Write what an upload to a model hub needs into a new folder.

    Parameters
    ----------
    folder
        The release.
    to
        The new folder.
    key
        Public key of the expected signer.
    """
    from gme_release.release.publish import publish_release

    files = publish_release(folder, to, key)
    say(f"{to}: {len(files)} files. Upload it with `hf upload <your name>/<model> {to}`.")
