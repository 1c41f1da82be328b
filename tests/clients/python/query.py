"""Counts rows, offsets and keys in Parquet files, with DuckDB or pyarrow: ENGINE FOLDER FILE... Prints JSON."""

import base64
import json
import sys


def with_duckdb(paths):
    import duckdb

    files = f"read_parquet({paths}, hive_partitioning = true)"
    rows = duckdb.sql(f"select count(*) from {files}").fetchall()[0][0]
    partitions = duckdb.sql(
        f'select "partition", min("offset"), max("offset") from {files} group by 1 order by 1'
    ).fetchall()
    keys = duckdb.sql(f"select key, count(*) from {files} group by 1").fetchall()
    return rows, partitions, keys


def with_pyarrow(paths):
    import pyarrow.compute as compute
    import pyarrow.dataset as dataset

    table = dataset.dataset(paths, format="parquet", partitioning="hive", partition_base_dir=folder).to_table(
        columns=["partition", "offset", "key", "timestamp", "value", "headers"]
    )
    grouped = table.group_by("partition").aggregate([("offset", "min"), ("offset", "max")]).to_pylist()
    partitions = sorted((row["partition"], row["offset_min"], row["offset_max"]) for row in grouped)
    counts = compute.value_counts(table["key"].combine_chunks().cast("binary")).to_pylist()
    return table.num_rows, partitions, [(count["values"], count["counts"]) for count in counts]


engine, folder, *files = sys.argv[1:]
files = [f"{folder}/{file}" for file in files]
rows, partitions, keys = {"duckdb": with_duckdb, "pyarrow": with_pyarrow}[engine](files)
print(
    json.dumps(
        {
            "rows": rows,
            "partitions": [
                {"partition": partition, "min_offset": least, "max_offset": most} for partition, least, most in partitions
            ],
            "by_key": {base64.b64encode(bytes(key)).decode(): count for key, count in keys},
        }
    )
)
