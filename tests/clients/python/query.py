"""Questions of an analyst to Parquet files, asked of one engine: ENGINE FOLDER FILE... Prints JSON.

Engines: duckdb, pyarrow, polars, spark (wants pyspark and Java). All must give the same answers: rows and offsets of each
partition, rows of each key, rows of each value of the header "level", null values, first and last time in UTC.
"""

import base64
import json
import sys
from datetime import timezone


def with_duckdb(paths):
    import duckdb

    files = f"read_parquet({paths}, hive_partitioning = true)"
    # Times as microseconds: whole ones with a zone would want another package.
    rows, nulls, first, last, kind = duckdb.sql(
        f"""select count(*), count(*) filter (value is null), epoch_us(min("timestamp")), epoch_us(max("timestamp")),
            any_value(typeof("timestamp")) from {files}"""
    ).fetchall()[0]
    if kind != "TIMESTAMP WITH TIME ZONE":
        sys.exit(f"duckdb: times are {kind}")
    partitions = duckdb.sql(
        f'select "partition", min("offset"), max("offset") from {files} group by 1 order by 1'
    ).fetchall()
    keys = duckdb.sql(f"select key, count(*) from {files} group by 1").fetchall()
    levels = duckdb.sql(
        f"""select header.value, count(*) from (select unnest(headers) as header from {files})
            where decode(header.key) = 'level' group by 1"""
    ).fetchall()
    return rows, partitions, keys, levels, nulls, first, last


def with_pyarrow(paths):
    import pyarrow.compute as compute
    import pyarrow.dataset as dataset

    table = dataset.dataset(paths, format="parquet", partitioning="hive", partition_base_dir=folder).to_table(
        columns=["partition", "offset", "key", "timestamp", "value", "headers"]
    )
    grouped = table.group_by("partition").aggregate([("offset", "min"), ("offset", "max")]).to_pylist()
    partitions = sorted((row["partition"], row["offset_min"], row["offset_max"]) for row in grouped)
    times = compute.min_max(table["timestamp"]).as_py()
    headers = compute.list_flatten(table["headers"]).combine_chunks()
    values = headers.field("value").filter(compute.equal(headers.field("key"), b"level"))
    return (
        table.num_rows, partitions, counted(table["key"]), counted(values), table["value"].null_count, times["min"],
        times["max"],
    )


def counted(column):
    import pyarrow.compute as compute

    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return [(count["values"], count["counts"]) for count in compute.value_counts(column.cast("binary")).to_pylist()]


def with_polars(paths):
    import polars

    table = polars.scan_parquet(paths, hive_partitioning=True)
    rows, nulls, first, last = table.select(
        polars.len().alias("rows"),
        polars.col("value").null_count().alias("nulls"),
        polars.col("timestamp").min().alias("first"),
        polars.col("timestamp").max().alias("last"),
    ).collect().row(0)
    offset = polars.col("offset")
    partitions = table.group_by("partition").agg(offset.min().alias("least"), offset.max().alias("most"))
    header = polars.col("headers").struct.field
    levels = (
        table.select("headers").explode("headers").filter(header("key") == b"level")
        .group_by(header("value").alias("level")).agg(polars.len())
    )
    return (
        rows, partitions.sort("partition").collect().rows(), table.group_by("key").agg(polars.len()).collect().rows(),
        levels.collect().rows(), nulls, first, last,
    )


def with_spark(paths):
    from pyspark.sql import SparkSession, functions

    spark = (
        SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC").config("spark.sql.shuffle.partitions", "2").getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    table = spark.read.option("basePath", folder).parquet(*paths)
    table.createOrReplaceTempView("records")
    # Times as microseconds: Python's own zone has no say.
    rows, nulls, first, last = spark.sql(
        "select count(*), count_if(value is null), unix_micros(min(timestamp)), unix_micros(max(timestamp)) from records"
    ).first()
    partitions = spark.sql("select partition, min(offset), max(offset) from records group by 1 order by 1").collect()
    keys = spark.sql("select key, count(*) from records group by 1").collect()
    levels = (
        table.select(functions.explode("headers").alias("header")).where("header.key = cast('level' as binary)")
        .groupBy("header.value").count().collect()
    )
    answer = (
        rows, [tuple(row) for row in partitions], [tuple(row) for row in keys], [tuple(row) for row in levels], nulls,
        first, last,
    )
    spark.stop()
    return answer


def milliseconds(time):
    """Since the epoch, of a time that knows its zone, or of microseconds."""
    if isinstance(time, int):
        return time // 1000
    if time.tzinfo is None:
        sys.exit(f"{engine}: {time} has no zone")
    return round(time.astimezone(timezone.utc).timestamp() * 1000)


def by_text(counts):
    return {base64.b64encode(bytes(key)).decode(): count for key, count in counts}


engine, folder, *files = sys.argv[1:]
files = [f"{folder}/{file}" for file in files]
engines = {"duckdb": with_duckdb, "pyarrow": with_pyarrow, "polars": with_polars, "spark": with_spark}
rows, partitions, keys, levels, nulls, first, last = engines[engine](files)
print(
    json.dumps(
        {
            "rows": rows,
            "partitions": [
                {"partition": partition, "min_offset": least, "max_offset": most} for partition, least, most in partitions
            ],
            "by_key": by_text(keys),
            "by_level": by_text(levels),
            "null_values": nulls,
            "first": milliseconds(first),
            "last": milliseconds(last),
        }
    )
)
