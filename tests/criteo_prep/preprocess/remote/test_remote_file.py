"""URLs: which are taken, what is shown of them, and that a secret in them is not."""

import pickle
from pathlib import Path

import pytest

from criteo_prep.preprocess.locations import local_paths, location_of
from criteo_prep.preprocess.remote.errors import UrlError


@pytest.mark.parametrize("url, name, suffix, shown", [
    ("s3://bucket/criteo/day_0.gz", "day_0.gz", ".gz", None),
    ("s3a://bucket/criteo/day_0", "day_0", "", "s3://bucket/criteo/day_0"),
    ("s3://bucket", "", "", None),
    ("s3://anonymous@bucket/day_0", "day_0", "", None),
    ("s3://bucket/a#b", "a#b", "", None),
    ("gs://bucket/logs/", "logs", "", "gs://bucket/logs"),
    ("abfs://logs@account.dfs.core.windows.net/day_0", "day_0", "", None),
    ("hdfs://node:8020/user/day_10.parquet", "day_10.parquet", ".parquet", None),
    ("HTTPS://host/a%20b/day%5F1.zst?X-Amz-Signature=HUSH#x", "day_1.zst", ".zst", "https://host/a%20b/day%5F1.zst"),
])  # fmt: skip
def test_what_a_url_names(url, name, suffix, shown):
    location = location_of(url)
    assert (location.name, location.suffix, str(location)) == (name, suffix, shown or url)
    assert pickle.loads(pickle.dumps(location)) == location
    assert "HUSH" not in repr(location) + str(location) + f"{location!s}{location.name}"


def test_the_query_is_kept_to_fetch_the_file():
    assert location_of("https://host/day_0?a=1&b=2").url == "https://host/day_0?a=1&b=2"
    assert location_of("https://host/day_0?a=1") != location_of("https://host/day_0?a=2")


@pytest.mark.parametrize("url, complaint", [
    ("s3://key:HUSH@bucket/day_0", "a user name or a password stands in the URL"),
    ("s3://HUSH@bucket/day_0", "a user name or a password stands in the URL"),
    ("https://user:HUSH@host/day_0", "~/.netrc"),
    ("https://anonymous@host/day_0", "a user name or a password stands in the URL"),
    ("abfs://logs:HUSH@account.dfs.core.windows.net/day_0", "az login"),
    ("hdfs://user:HUSH@node/day_0", "kinit"),
    ("s3://bucket/day_0?secret_key=HUSH", "has a query behind [?]"),
    ("ftp://host/day_0", "has a scheme that is not known; expected one of file://, s3://"),
    ("s3:///day_0", "names no bucket or host"),
    ("https://host/logs/", "does not list its files. Name each file"),
    ("https://host", "does not list its files. Name each file"),
    ("file://other/day_0", "a file of another machine"),
])  # fmt: skip
def test_a_url_that_is_refused(url, complaint):
    with pytest.raises(UrlError, match=complaint) as error:
        location_of(url)
    assert "HUSH" not in str(error.value) and "\n" not in str(error.value)


def test_paths_and_file_urls_are_paths(tmp_path):
    assert location_of("day_0") == Path("day_0")
    assert location_of("file:///a/b%20c/day_0") == location_of("file://localhost/a/b c/day_0") == Path("/a/b c/day_0")
    assert local_paths(["s3://b/x", "file:///a", tmp_path, "https://h/x"]) == [Path("/a"), tmp_path]
