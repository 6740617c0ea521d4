"""A Dask cluster that talks TLS only, with certificates made for the occasion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click.testing
import dask
import distributed
import pytest
import trustme
from dask_cluster import Cluster, Place
from toy_runs import dataset_hash, options, run
from toy_stages import toy_plan

from facegraft.cli.datasets import doctor
from facegraft.engine import EngineError, OptionError, Tls, start_client

pytestmark = pytest.mark.slow
PLAN = toy_plan(8, 2)


@dataclass(frozen=True)
class Papers:
    """PEM files of one authority."""

    ca: str
    cert: str
    key: str

    def as_options(self) -> list[str]:
        return ["--tls-ca-file", self.ca, "--tls-cert", self.cert, "--tls-key", self.key]

    def client(self) -> Tls:
        return Tls(self.ca, self.cert, self.key)

    def security(self) -> distributed.Security:
        return distributed.Security(tls_ca_file=self.ca, tls_client_cert=self.cert, tls_client_key=self.key)


def issue(folder: Path) -> Papers:
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return Papers(*(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")))


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return issue(tmp_path_factory.mktemp("tls") / "papers")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, papers: Papers) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("secure"), Place(tls=papers.as_options()))
    made.worker("a")
    with distributed.Client(made.address, security=papers.security(), set_as_default=False) as client:
        client.wait_for_workers(1, timeout=600)
    yield made
    made.close()


def test_with_certificates_the_bytes_are_the_same(tmp_path: Path, secure: Cluster, papers: Papers) -> None:
    assert secure.address.startswith("tls://")
    run(PLAN, tmp_path / "plain", scheduler="sync")
    run(PLAN, tmp_path / "by_options", scheduler=secure.address, tls=papers.client())
    run(PLAN, tmp_path / "without_scheme", scheduler=secure.address.removeprefix("tls://"), tls=papers.client())
    tls = "distributed.comm.tls"
    with dask.config.set(
        {f"{tls}.ca-file": papers.ca, f"{tls}.client.cert": papers.cert, f"{tls}.client.key": papers.key}
    ):
        run(PLAN, tmp_path / "by_configuration", scheduler=str(secure.file))
    hashes = [dataset_hash(tmp_path / name) for name in ("plain", "by_options", "without_scheme", "by_configuration")]
    assert hashes[0] == hashes[1] == hashes[2] == hashes[3]


def test_without_certificates_there_is_one_clear_line(secure: Cluster) -> None:
    with (
        pytest.raises(
            OptionError, match=r"the scheduler at tls://\S+ asks for certificates; give --tls-ca, --tls-cert"
        ),
        start_client(options(scheduler=secure.address)),
    ):
        pass


def test_plain_tcp_to_it_is_told_of_tls(secure: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.connect.CONNECT_S", 2.0)
    plain = secure.address.replace("tls://", "tcp://")
    with (
        pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://\S+ .*one that uses TLS is at tls://"),
        start_client(options(scheduler=plain)),
    ):
        pass


def test_papers_of_another_authority_are_refused(
    tmp_path: Path, secure: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.connect.CONNECT_S", 2.0)
    strange = issue(tmp_path / "strange").client()
    with (
        pytest.raises(
            EngineError, match=r"no Dask scheduler answers at tls://\S+ .* signed by the authority of --tls-ca"
        ),
        start_client(options(scheduler=secure.address, tls=strange)),
    ):
        pass


def test_tls_files_that_make_no_sense_are_wrong_usage(tmp_path: Path, papers: Papers) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    other = issue(tmp_path / "other")
    for tls in (Tls(str(tmp_path / "text.pem"), papers.cert, papers.key), Tls(papers.ca, papers.cert, other.key)):
        with (
            pytest.raises(
                OptionError, match=r"the TLS files cannot be used \(.*\); --tls-ca, --tls-cert and --tls-key"
            ),
            start_client(options(scheduler="tls://127.0.0.1:9", tls=tls)),
        ):
            pass
    with (
        pytest.raises(OptionError, match="the TLS files are for a scheduler at tls://…, and this one is at tcp://"),
        start_client(options(scheduler="tcp://127.0.0.1:9", tls=papers.client())),
    ):
        pass
    with pytest.raises(OptionError, match="the TLS files are for a Dask scheduler: give --scheduler"):
        options(tls=papers.client())


def test_doctor_lists_the_workers_of_a_cluster(
    secure: Cluster, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegraft.doctor.examine", list)
    arguments = [
        "--scheduler",
        secure.address,
        "--tls-ca",
        papers.ca,
        "--tls-cert",
        papers.cert,
        "--tls-key",
        papers.key,
    ]
    result = click.testing.CliRunner().invoke(doctor, arguments)
    assert result.exit_code == 0, result.output
    assert re.search(r"ok   Dask scheduler +tls://\S+: facegraft \d", result.output)
    assert re.search(r"ok   worker a +tls://\S+, 1 threads, \d+ GB: facegraft \d", result.output)
    result = click.testing.CliRunner().invoke(doctor, arguments[:2])
    assert result.exit_code == 1
    assert re.search(
        r"BAD  Dask scheduler +not reached  → the scheduler at tls://\S+ asks for certificates", result.output
    )
    assert click.testing.CliRunner().invoke(doctor, arguments[:4]).exit_code == 2
