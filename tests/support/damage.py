"""What may happen to a file, for the tests of readers."""

from hypothesis import strategies as st

damage = st.one_of(
    st.tuples(st.just("set"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.integers(0, 1)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 40)),
    st.tuples(st.just("overwrite"), st.floats(0, 1), st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" * 4])),
)


def damaged(content, how, where, what):
    """The bytes of a file after one of the damages."""
    place = int(where * len(content))
    if how == "set":
        return content[:place] + bytes([what]) + content[place + 1 :]
    if how == "cut":
        return content[:place]
    if how == "insert":
        return content[:place] + what + content[place:]
    if how == "delete":
        return content[:place] + content[place + what :]
    return content[:place] + what + content[place + len(what) :]
