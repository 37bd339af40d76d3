"""The bill of materials of a release: CycloneDX 1.6, with the model, its datasets and the pinned packages."""

from __future__ import annotations

import re
from uuid import UUID

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from gme_data.errors import FoundryError
from gme_release.release.record import DatasetRecord, ReleaseRecord, release_id

BOM = "bom.cdx.json"
"""File of the bill in a bundle."""
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")


def render_bom(record: ReleaseRecord, lock: str) -> str:
    """Returns the bill as JSON that is valid by its schema; equal arguments give equal bytes.

    Args:
        record: The release.
        lock: Text of ``requirements.txt``.

    Raises:
        FoundryError: A value of the record does not fit the schema.
    """
    # A random serial number or the present time would make verification fail, which renders the bill again.
    bom = Bom(serial_number=UUID(release_id(record)[:32], version=4))
    bom.metadata.component = _model(record)
    datasets = [_dataset(dataset) for dataset in record.datasets]
    packages = [_package(*pin.groups()) for line in lock.splitlines() if (pin := _PIN.match(line))]
    bom.components.update(datasets + packages)
    bom.register_dependency(bom.metadata.component, [*datasets, *packages])
    bom.metadata.timestamp = None  # type: ignore[assignment]
    text = str(JsonV1Dot6(bom).output_as_string(indent=1))
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise FoundryError(f"The bill of materials does not fit its schema: {problem}")
    return text + "\n"


def _model(record: ReleaseRecord) -> Component:
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=record.name,
        version=record.tag,
        bom_ref=f"model:{record.model}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=record.model)],
        licenses=[LicenseExpression(record.licence)],
        properties=[
            Property(name="gme:release", value=release_id(record)),
            Property(name="gme:commit", value=record.source.commit),
        ],
    )


def _dataset(dataset: DatasetRecord) -> Component:
    return Component(
        type=ComponentType.DATA,
        name=dataset.path,
        version=dataset.content[:12],
        bom_ref=f"data:{dataset.path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=dataset.content)],
        properties=[Property(name="gme:licence", value=licence) for licence in dataset.licences],
    )


def _package(name: str, version: str) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"pypi:{name}",
        purl=PackageURL("pypi", None, name.lower(), version),
    )
