"""Looking at and spoiling objects, past facegraft's own code."""

from __future__ import annotations

import hashlib

import boto3

from facegraft.engine.evidence import EVIDENCE_FILE

OWN = ("logs/", "rejects/", ".lock", "run.json", EVIDENCE_FILE, "report/")


def split(url: str) -> tuple[str, str]:
    name, _, key = url.removeprefix("s3://").partition("/")
    return name, key


def listed(url: str) -> list[str]:
    """Names below a URL, relative to it."""
    name, prefix = split(url.rstrip("/") + "/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix)
    return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]


def get(url: str) -> bytes:
    name, key = split(url)
    data: bytes = boto3.client("s3").get_object(Bucket=name, Key=key)["Body"].read()
    return data


def put(url: str, data: bytes) -> None:
    name, key = split(url)
    boto3.client("s3").put_object(Bucket=name, Key=key, Body=data)


def delete(url: str) -> None:
    name, key = split(url)
    boto3.client("s3").delete_object(Bucket=name, Key=key)


def dataset_hash(url: str) -> dict[str, str]:
    """Like toy_runs.dataset_hash: hash of every object of a dataset, or of all datasets of a run."""
    kept = [
        name
        for name in listed(url)
        if not any(f"/{name}".endswith(f"/{own}") or f"/{own}" in f"/{name}" for own in OWN)
    ]
    return {name: hashlib.sha256(get(f"{url}/{name}")).hexdigest() for name in sorted(kept)}
