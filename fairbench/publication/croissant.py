"""A Croissant description of what was published: which files, with their hashes, and what the columns mean."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from fairbench.publication.published import Publication

MIME = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".html": "text/html",
    ".tex": "text/x-tex",
}
# The context that Croissant 1.0 asks for (https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def describe(publication: Publication, files: list[Path]) -> str:
    """Write the description of a publication's files, aggregates all of them, as JSON-LD."""
    creator = {"@type": "sc:Organization", "name": publication.publisher}
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": publication.name,
        "description": "Results of a benchmark of debiasing methods: counts and statistics over patients, and no"
        " patient's row.",
        "datePublished": publication.published,
        "version": publication.published[:10].replace("-", "."),
        **({"creator": creator} if publication.publisher else {}),
        "distribution": [_file(path) for path in files],
        "recordSet": [_columns(path) for path in files if path.suffix == ".csv"],
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _file(path: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "encodingFormat": MIME[path.suffix],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _columns(path: Path) -> dict[str, Any]:
    """One record for each row of every table of the board; all columns as text, empty where undefined."""
    with path.open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "Fractions, seconds and bytes, unrounded; docs/publishing.md says what each column means.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"rows/{column}",
                "name": column,
                "dataType": "sc:Text",
                "source": {"fileObject": {"@id": path.name}, "extract": {"column": column}},
            }
            for column in columns
        ],
    }
