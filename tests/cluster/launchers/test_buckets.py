"""Machines of `ray up` and a store in a bucket: the role that they need, where their data come from, and other ways."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import cluster
from cluster.fill_in import ANSWERS, filled_in
from cluster.launchers.lint_launcher import lint_launcher, read
from cluster.spec import ClusterSpec
from cluster.spec_file import load

FOLDER = Path(cluster.__file__).parent
SCRIPT = FOLDER / "aws-role.sh"


@pytest.fixture
def lint(tmp_path):
    """lint(KIND, SPEC, old=new) -> codes of a filled-in launcher with some texts replaced."""

    def of(kind, spec, replaced):
        launcher, _ = filled_in(kind, {name: answer.example for name, answer in ANSWERS[kind].items()}).values()
        for old, new in replaced.items():
            assert re.search(old, launcher, re.MULTILINE), old
            launcher = re.sub(old, lambda _, new=new: new, launcher, flags=re.MULTILINE)
        file = tmp_path / f"ray-up-{kind}.yaml"
        file.write_text(launcher)
        return [finding.code for finding in lint_launcher(read(file), spec)]

    return of


def spec_of(kind, **fields):
    return ClusterSpec.model_validate({**load(kind).model_dump(), **fields})


ROLES = {"aws": r"^      IamInstanceProfile: .*\n", "gcp": r"^      serviceAccounts: (&role\n.*\n.*|[*]role)\n"}


@pytest.mark.parametrize(("kind", "own", "other"), [("aws", "s3://b/s", "gs://b/s"), ("gcp", "gs://b/s", "s3://b/s")])
def test_each_worker_type_needs_a_role_for_a_bucket_of_its_cloud(lint, kind, own, other):
    removed = {ROLES[kind]: ""}
    assert lint(kind, spec_of(kind, store=own), {}) == []
    assert lint(kind, spec_of(kind, store=own), removed) == ["no-role"] * 2
    assert lint(kind, spec_of(kind, store=other), removed) == []  # whose credentials no role gives


def test_credentials_in_the_commands_are_as_good_as_a_role(lint):
    keys = {ROLES["aws"]: "", "RAY_AUTH_MODE=token'": "RAY_AUTH_MODE=token AWS_ACCESS_KEY_ID=k'"}
    assert lint("aws", spec_of("aws", store="s3://b/s"), keys) == []


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_a_mounted_file_system_may_hold_store_and_data_instead(lint, kind):
    page = (FOLDER.parent / "docs" / "clusters.md").read_text()
    lines = re.search(r"^A mounted file system (?:.+\n)+\n((?:    .*\n)+)", page, re.MULTILINE)[1]
    mounted = re.sub("^  ", "", lines, flags=re.MULTILINE)
    folders = {name: f"/mnt/transkd/data/{name}" for name in load(kind).data_roots}
    spec = spec_of(kind, store="/mnt/transkd/store", data_roots=folders)
    copies = r"^(  - timeout .*\n)?  - (>-\n    )?mkdir -p /home/ubuntu/data.*\n(    gcloud.*\n)?"
    assert lint(kind, spec, {copies: mounted}) == []
    assert lint(kind, spec, {copies: mounted, ROLES[kind]: ""}) == []
    assert set(lint(kind, spec, {})) == {"not-mounted"}


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ('aws s3 sync s3://my-bucket/transkd/data "/home/ubuntu/data"', []),
        ("aws s3 sync s3://my-bucket/transkd/data --delete /home/ubuntu/data", []),
        ("aws s3 ls s3://my-bucket\n  - /home/ubuntu/data/fetch.sh", ["not-mounted"] * 3),
    ],
)
def test_a_folder_is_copied_by_one_command(lint, command, codes):
    assert lint("aws", spec_of("aws", store="s3://b/s"), {r"aws s3 sync --only-show-errors .*": command}) == codes


def test_a_template_of_machines_may_name_the_role(lint):
    role = {ROLES["gcp"]: "      sourceInstanceTemplate: global/instanceTemplates/mine\n"}
    assert lint("gcp", spec_of("gcp", store="gs://b/s"), role) == []


def test_what_is_copied_is_no_place_for_the_store(lint):
    assert lint("aws", spec_of("aws", store="/home/ubuntu/data/store"), {}) == ["not-mounted"]


def test_the_role_may_use_one_bucket_and_pass_itself_on():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    trust, rights = (json.loads(text) for text in re.findall(r"^\w+='(\{.*?^\})'", SCRIPT.read_text(), re.M | re.S))
    assert trust["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}
    allowed = {}
    for statement in rights["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
            allowed[action] = statement
    role = "arn:PARTITION:iam::ACCOUNT:role/transkd"
    assert allowed["iam:PassRole"]["Resource"] == role
    assert allowed["s3:ListBucket"]["Resource"] == "arn:PARTITION:s3:::BUCKET"
    for action in ("GetObject", "PutObject", "DeleteObject"):
        assert allowed[f"s3:{action}"]["Resource"] == "arn:PARTITION:s3:::BUCKET/*"
    assert {action.partition(":")[0] for action in allowed} == {"ec2", "iam", "s3"}
    assert {"ec2:DescribeInstances", "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"} <= set(allowed)


def test_the_script_says_how_it_is_called():
    done = subprocess.run(["bash", SCRIPT, "mine"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and "BUCKET REGION" in done.stderr
