"""A file or folder that a URL names.

    s3://bucket/criteo/day_0.gz                       S3 and compatible servers; s3a:// is the same
    gs://bucket/criteo/day_0.gz                       Google Cloud Storage
    abfs://container@account.dfs.core.windows.net/... Azure; abfss:// is the same
    hdfs://namenode:8020/criteo/day_0                 HDFS
    https://host/criteo/day_0.gz?signature            a web server; also http://

No user name or password may stand in a URL, because commands are seen by others and kept. The query of a web address is
kept to fetch the file, and never shown: it may be a signature that lets anybody read the file.
"""

import re
import urllib.parse
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from criteo_prep.preprocess.remote.errors import UrlError

OBJECT_SCHEMES = ("s3", "gs", "abfs", "abfss", "hdfs")
WEB_SCHEMES = ("https", "http")
SCHEMES = (*OBJECT_SCHEMES, *WEB_SCHEMES)
_SAME_SCHEME = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(.*)", re.DOTALL)
ANONYMOUS = "anonymous"  # as user in s3:// and gs:// URLs: read a public bucket without credentials


@dataclass(frozen=True)
class RemoteFile:
    """A file or folder that a URL names. It can be pickled, and then holds the query of its URL.

    Attributes:
      scheme: one of SCHEMES.
      place: bucket, container@account, or host and port.
      path: the path, as the URL has it, without a slash at its end.
      query: the query of a web address, which may be a secret; else "".
      is_folder: whether it is a folder, where a listing said it; else None.
    """

    scheme: str
    place: str
    path: str
    query: str = field(default="", repr=False)
    is_folder: bool | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        last = self.path.rpartition("/")[2]
        return urllib.parse.unquote(last) if self.scheme in WEB_SCHEMES else last

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def url(self) -> str:
        """The whole URL, with its query. Nothing that a user sees may have it."""
        return f"{self}{self.query}"

    def resolve(self) -> "RemoteFile":
        """Itself: two different URLs are two files."""
        return self

    def child(self, name: str, is_folder: bool) -> "RemoteFile":
        """A file or folder in this folder."""
        return RemoteFile(self.scheme, self.place, f"{self.path}/{name}", is_folder=is_folder)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}{self.path}"


def is_url(text: str) -> bool:
    """Whether a text is a URL, and not the path of a file."""
    return _URL.fullmatch(text) is not None


def remote_file(text: str) -> RemoteFile:
    """The file or folder that a URL names.

    Raises:
      UrlError: the URL has another scheme, lacks a bucket or host, or holds a password, a query or a key.
    """
    match = _URL.fullmatch(text)
    assert match, text
    scheme, place, path, rest = match[1].lower(), match[2], match[3], match[4]
    scheme = _SAME_SCHEME.get(scheme, scheme)
    user, at, host = place.rpartition("@")
    shown = f"{scheme}://{host}{path}"
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in ("file", *SCHEMES))
        raise UrlError(f"{shown}: has a scheme that is not known; expected one of {known}.")
    if not host:
        raise UrlError(f"{shown}: names no bucket or host. Write {scheme}://NAME/PATH.")
    if ":" in user or (at and not _may_have_user(scheme, user)):
        raise UrlError(
            f"{shown}: a user name or a password stands in the URL, where others can see it. Leave it out, and give "
            f"the credentials by {_CREDENTIALS[scheme]}."
        )
    if scheme not in WEB_SCHEMES and rest:
        if rest.startswith("?"):
            raise UrlError(f"{shown}: has a query behind ?, which only https:// URLs may have. Leave it out.")
        path, rest = path + rest, ""
    if scheme in WEB_SCHEMES and (not path or path.endswith("/")):
        raise UrlError(f"{shown}: names a folder of a web server, which does not list its files. Name each file.")
    return RemoteFile(scheme, place, path.rstrip("/"), query=rest.partition("#")[0])


def _may_have_user(scheme: str, user: str) -> bool:
    """Whether the text before the @ of a URL is no credential: a container, a user of HDFS, or ANONYMOUS."""
    return scheme in ("abfs", "abfss", "hdfs") or (scheme in ("s3", "gs") and user == ANONYMOUS)


_AZURE = "AZURE_CLIENT_ID and its like, a managed identity, or az login"
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or the role of the machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
    "abfs": _AZURE,
    "abfss": _AZURE,
    "hdfs": "kinit",
    "https": "~/.netrc",
    "http": "~/.netrc",
}


def credentials_of(scheme: str) -> str:
    """How credentials for URLs of a scheme are given, in words."""
    return _CREDENTIALS[scheme]
