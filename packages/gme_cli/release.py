"""`gme release`: make, check, repeat, compare and lay out releases. See docs/release.md."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gme_cli.options import Common, print_json, say

app = App(name="release", help="Make, verify, reproduce, compare or publish a release.", result_action="return_value")
_COMMON = Common()
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
        Of the release, e.g. v1.
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
        say(f"Would release {config.model_name} {'v' + version if version else '(champion)'} as {tag}.")
        return
    number = version.removeprefix("v") if version else None
    made = create_release(
        common.workspace,
        config,
        tag,
        key,
        version=number,
        licence=licence,
        require_same_code=partial(require_same_code, pipeline_chain(pipeline)),
    )
    if common.json:
        print_json({"folder": made.folder, "id": made.id, "git_tag": made.git_tag, "overall": made.record.overall})
        return
    say(f"{made.folder}: {made.id}")
    say(f'Next: git tag -a "{made.git_tag}" -m {made.id[:12]} {made.record.source.commit[:12]}')
    say(f"Check it: gme release verify {made.folder}")


@app.command
def verify(folder: Path, /, *, key: _Key = None, rescore: str | None = None, common: Common = _COMMON) -> None:
    """Find any changed byte, a wrong signature, a missing or extra file, an edited record.

    Parameters
    ----------
    folder
        The release.
    key
        Public key of who should have signed it. Without it, the one in the folder: nothing was changed since somebody
        signed, but not who did.
    rescore
        Score the model on this task again, on the workspace's data.
    """
    from gme_release.release.verify import verify_release

    found = verify_release(folder, key)
    result = {"id": found.id, "files": found.files, "key": found.key, "trusted": found.trusted}
    if not common.json:
        say(f"{folder}: {found.files} files as released, record {found.id}")
        say(f"signed by {found.key}" + ("" if found.trusted else " (found in the folder; give --key to be sure whose)"))
    if rescore is not None:
        from flows.release import rescore as score_again

        compared = score_again(folder, found.record, rescore, common.workspace)
        result["rescored"] = asdict(compared)
        if not common.json:
            say(f"{rescore}: {compared.computed:.4f}, recorded {compared.recorded:.4f} ± {compared.tolerance:g}")
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
        Public key of who should have signed it.
    """
    from flows.release import reproduce as run_again
    from gme_release.release.verify import verify_release

    for score in run_again(verify_release(folder, key).record, to.resolve()):
        say(f"{score.name}: {score.computed:.4f}, recorded {score.recorded:.4f} ± {score.tolerance:g}; data are equal")


@app.command
def diff(before: Path, after: Path, /, *, common: Common = _COMMON) -> None:
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
        Public key of who should have signed it.
    """
    from gme_release.release.publish import publish_release

    files = publish_release(folder, to, key)
    say(f"{to}: {len(files)} files. Upload it with `hf upload <your name>/<model> {to}`.")
