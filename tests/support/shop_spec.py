"""A feature spec as published ones are written: own names and files, features in another order than the channels."""

import yaml

from criteo_prep.feature_spec import FeatureSpec

SHOP = """
feature_spec:
  store:  {dtype: int8,  cardinality: 90}
  item:   {dtype: int32, cardinality: 5000000}
  price:  {dtype: float16}
  age:    {dtype: float16}
  bought: {dtype: bool}
channel_spec:
  categorical: [store, item]
  numerical: [price, age]
  label: [bought]
source_spec:
  train:
    - {type: split_binary, features: [price, age], files: [train/dense.bin]}
    - {type: split_binary, features: [bought],     files: [train/y.bin]}
    - {type: split_binary, features: [store],      files: [train/store.bin]}
    - {type: split_binary, features: [item],       files: [train/item.bin]}
  test:
    - {type: split_binary, features: [price, age], files: [test/dense.bin]}
    - {type: split_binary, features: [bought],     files: [test/y.bin]}
    - {type: split_binary, features: [store],      files: [test/store.bin]}
    - {type: split_binary, features: [item],       files: [test/item.bin]}
metadata: {}
"""


def load(tmp_path, text, name="feature_spec.yaml"):
    (tmp_path / name).write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False))
    return FeatureSpec.load(tmp_path / name)
