"""DVC's remote on S3, unreachable or read-only; two revisions compared; a flipped byte found."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from release_miniature import build_workspace, good_scores

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.dvc.command import run_dvc
from gme_release.dvc.metric_files import write_metric_files
from gme_release.dvc.versioning import pull_folder, version_outputs
from gme_release.release.audit import audit
from gme_release.run_facts import RunFacts

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "never-written-anywhere",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bytes")
    return "s3://bytes/dvc"


def test_s3_by_the_environment_alone(
    facts: RunFacts, config: ReleaseConfig, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3

    monkeypatch.setenv("GME_DVC_REMOTE", bucket)
    workspace = facts.workspace
    found = version_outputs(workspace, config)
    assert found.remote == bucket
    assert not (workspace / "dvc-store").exists()
    settings = "".join(path.read_text() for path in (workspace / ".dvc").glob("config*"))
    assert "never-written-anywhere" not in settings

    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copytree(workspace / ".dvc", clone / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copy(workspace / "data.dvc", clone)
    pull_folder(clone, "data")
    assert (clone / "data/atlas/README.md").read_text() == "corpus\n"

    objects = boto3.client("s3")
    listed = objects.list_objects_v2(Bucket="bytes", Prefix="dvc/files/md5")["Contents"]
    victim = max(listed, key=lambda entry: entry["Size"])["Key"]
    data = bytearray(objects.get_object(Bucket="bytes", Key=victim)["Body"].read())
    data[len(data) // 2] ^= 1
    objects.put_object(Bucket="bytes", Key=victim, Body=bytes(data))
    damage = audit(workspace, config)
    assert [one.what for one in damage[f"remote {bucket}"]] == ["damaged"]
    assert damage["cache"] == []
    audit(workspace, config, repair=True)
    version_outputs(workspace, config)
    assert not any(audit(workspace, config).values())


@pytest.mark.hardening("faults", "F25", "remote unreachable or read-only")
def test_unreachable_loses_nothing_and_points_at_nothing(
    facts: RunFacts, config: ReleaseConfig, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("GME_DVC_REMOTE", bucket)
    with pytest.raises(FoundryError, match=r"remote 'gme' \(s3://bytes/dvc\) .* Could not connect") as refused:
        version_outputs(facts.workspace, config)
    assert "never-written-anywhere" not in str(refused.value)
    assert not [name for name in ("data.dvc", "checkpoints.dvc") if (facts.workspace / name).exists()]
    monkeypatch.delenv("GME_DVC_REMOTE")
    version_outputs(facts.workspace, config)
    pointer = (facts.workspace / "data.dvc").read_text()

    build_workspace(facts.workspace, seed=1)
    (facts.workspace / "data/atlas/README.md").write_text("newer\n")
    shutil.rmtree(facts.workspace / "dvc-store")
    (facts.workspace / "dvc-store").write_text("nothing can be written below a file")
    with pytest.raises(FoundryError, match=r"remote 'store' \(../dvc-store\) .* Not a directory"):
        version_outputs(facts.workspace, config)
    assert (facts.workspace / "data.dvc").read_text() == pointer
    (facts.workspace / "dvc-store").unlink()
    version_outputs(facts.workspace, config)
    assert (facts.workspace / "data.dvc").read_text() != pointer


@pytest.mark.hardening("faults", "F25", "remote unreachable or read-only")
def test_a_remote_that_may_only_be_read(
    facts: RunFacts, config: ReleaseConfig, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3

    monkeypatch.setenv("GME_DVC_REMOTE", bucket)
    version_outputs(facts.workspace, config)
    pointer = (facts.workspace / "data.dvc").read_text()
    (facts.workspace / "data/atlas/README.md").unlink()
    (facts.workspace / "data/atlas/README.md").write_text("newer\n")
    deny = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::bytes/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    client = boto3.client("s3")
    client.put_bucket_policy(Bucket="bytes", Policy=policy)
    try:
        with pytest.raises(FoundryError, match=r"\(s3://bytes/dvc\) .* Forbidden; failed to push") as refused:
            version_outputs(facts.workspace, config)
        assert "may be written" in str(refused.value.hint)
        assert len(str(refused.value)) < 600
        assert (facts.workspace / "data.dvc").read_text() == pointer
        # Who reads needs no more: what was pushed before is still fetched.
        clone = tmp_path / "clone"
        clone.mkdir()
        shutil.copytree(facts.workspace / ".dvc", clone / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
        shutil.copy(facts.workspace / "data.dvc", clone)
        pull_folder(clone, "data")
        assert (clone / "data/atlas/README.md").read_text() == "corpus\n"
    finally:
        client.delete_bucket_policy(Bucket="bytes")
    version_outputs(facts.workspace, config)
    assert (facts.workspace / "data.dvc").read_text() != pointer


def test_two_revisions_are_compared(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    shutil.copytree(CHECKOUT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    for name in (".gitignore", ".dvcignore", "dvc.yaml"):
        shutil.copy(CHECKOUT / name, tmp_path)
    report = tmp_path / "reports" / "tiny"
    (report / "plots").mkdir(parents=True)
    for tag, value in (("v1", 0.6), ("v2", 0.75)):
        scores = good_scores()
        scores["overall"] = scores["tasks"][0]["value"] = value  # type: ignore[index]
        (report / "scores.json").write_text(json.dumps(scores))
        (report / "plots" / "curves.csv").write_text(f"phase,source,step,loss\nmix,flag,0,9\nmix,flag,1,{value}\n")
        (report / "plots" / "tasks.csv").write_text(f"task,model\nflag-i2i,{value}\n")
        (report / "plots" / "funnel.csv").write_text("step,in,kept,rejected\nwrite,9,8,1\n")
        write_metric_files(tmp_path, report)
        git("add", ".")
        git("commit", "-qm", tag)
        git("tag", tag)
    changed = json.loads(run_dvc(tmp_path, "metrics", "diff", "v1", "v2", "--json"))["metrics/scores.json"]
    assert changed["overall"]["diff"] == pytest.approx(0.15)
    assert changed["tasks.place-question-t2t.ndcg_at_10"]["new"] == 0.75
    run_dvc(tmp_path, "plots", "diff", "v1", "v2", "--out", "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Training loss" in page
    assert "v1" in page
