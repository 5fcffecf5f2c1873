"""Files by URL, read in place: never as a local copy.

remote_file  a file or folder that a URL names, and the rules for URLs
errors       what can be wrong with a remote file, each in one line
fetch        ranges of bytes, asked for again after a failure
read_ahead   a remote file as a binary file of Python, whose next ranges are already on their way
object_store S3, Google Cloud Storage, Azure and HDFS, by pyarrow
web          files on web servers, by requests
"""
