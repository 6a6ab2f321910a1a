"""Published files, downloaded once into scanpy's folder of data sets."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anndata import AnnData


@dataclass(frozen=True)
class Published:
    """A data set as its authors publish it.

    Parameters
    ----------
    name
        Its folder.
    base
        Address of the files.
    files
        Name of each file and its checksum (``"sha256:…"``), or None where none is published.
    """

    name: str
    base: str
    files: Mapping[str, str | None]

    def load(self, read: Callable[[dict[str, Path]], AnnData]) -> AnnData:
        """What the files hold, read by their names.

        Raises
        ------
        ConnectionError
            Where a file is not there and cannot be downloaded.
        ValueError
            Where the files do not have the published form, or another checksum.
        """
        files = self.fetch()
        try:
            return read(files)
        # Of a broken download (which may be a web page with an error) the readers say this.
        except (EOFError, KeyError, OSError, ValueError, zlib.error) as error:
            folder = next(iter(files.values())).parent
            msg = (
                f"The files of the data set {self.name!r} in {str(folder)!r} do not have the published form "
                f"({type(error).__name__}: {error}). Delete them, and call again or copy them there from {self.base}."
            )
            raise ValueError(msg) from error

    def fetch(self) -> dict[str, Path]:
        """Path of each file, downloaded where it is not there.

        Raises
        ------
        ConnectionError
            Where a file is not there and cannot be downloaded.
        ValueError
            Where a file has another checksum than was published.
        """
        # Both take long to import, and simulated data needs neither.
        import pooch
        from scanpy import settings

        folder = Path(settings.datasetdir) / "scgde" / self.name
        found = {}
        for name, checksum in self.files.items():
            url = f"{self.base}/{name}"
            try:
                found[name] = Path(pooch.retrieve(url, checksum, fname=name, path=folder, progressbar=True))
            # requests' errors are OSErrors, as are those of sockets and of the disk
            except OSError as error:
                msg = (
                    f"{name} of the data set {self.name!r} is not in {str(folder)!r} and could not be downloaded from "
                    f"{url} ({type(error).__name__}: {error}). Without a network, copy the file there from a machine "
                    "that has one, or use data that is simulated offline: scgde.datasets.simulate_cohort() or "
                    "simulate_clones()."
                )
                raise ConnectionError(msg) from error
        return found
