-- name: last_version
-- What has been trimmed was published.
SELECT max(
    coalesce((SELECT max(version) FROM change_log), 0),
    coalesce((SELECT CAST(value AS INTEGER) FROM cursor WHERE name = 'published'), 0)
);

-- name: add_block
INSERT OR IGNORE INTO change_block (object, block) VALUES (?, ?);

-- name: forget_blocks
DELETE FROM change_block WHERE block < ?;

-- name: add
INSERT INTO change_log (
    version, object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: published
SELECT CAST(value AS INTEGER) FROM cursor WHERE name = 'published';

-- name: mark_published
INSERT INTO change_published (version, at) VALUES (?, ?);

-- name: origin_of
SELECT origin FROM change_log WHERE version = ?;

-- name: oldest
SELECT min(version) FROM change_log;

-- name: before_since
WITH RECURSIVE block (n) AS (
    SELECT max(:version, (SELECT min(version) FROM change_log)) >> 11
    UNION ALL
    SELECT n + 1 FROM block WHERE n < (SELECT max(version) FROM change_log) >> 11
)
SELECT changed, before FROM block CROSS JOIN change_log ON change_log.version >> 11 = block.n AND change_log.id = :id
WHERE object = :object AND version > :version ORDER BY version;

-- name: corrected
-- An event tells its commit, a read does not, whoever made the change.
SELECT count(DISTINCT change_log.id)
FROM change_block CROSS JOIN change_log
    ON change_log.version BETWEEN 64 * change_block.block AND 64 * change_block.block + 63
WHERE change_block.object = :object AND change_block.block >= (:since + 1) / 64
    AND change_log.object = :object AND change_log.version > :since
    AND change_log.committed_at IS NULL AND change_log.origin <> 'backfill';

-- name: version_at
-- Whole seconds: that is all `LastModifiedDate` tells, and the commit comes after it.
WITH RECURSIVE block (n) AS (
    SELECT (SELECT min(version) FROM change_log) >> 11
    UNION ALL
    SELECT n + 1 FROM block WHERE n < (SELECT max(version) FROM change_log) >> 11
)
SELECT coalesce(max(version), 0) FROM block CROSS JOIN change_log ON change_log.version >> 11 = block.n AND change_log.id = :id
WHERE object = :object AND substr(committed_at, 1, 19) <= substr(:until, 1, 19);

-- name: since
SELECT version, object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at
FROM change_log WHERE version > :since ORDER BY version LIMIT :limit;

-- name: since_of_object
SELECT version, change_log.object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at
FROM change_block CROSS JOIN change_log
    ON change_log.version BETWEEN 64 * change_block.block AND 64 * change_block.block + 63
WHERE change_block.object = :object AND change_block.block >= (:since + 1) / 64
    AND change_log.object = :object AND change_log.version > :since
ORDER BY change_block.block, change_log.version LIMIT :limit;

-- name: since_of_record
-- The changes of a record: block by block, as index `change_id` has them.
WITH RECURSIVE block (n) AS (
    SELECT max(:since, (SELECT min(version) FROM change_log)) >> 11
    UNION ALL
    SELECT n + 1 FROM block WHERE n < (SELECT max(version) FROM change_log) >> 11
)
SELECT version, object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at
FROM block CROSS JOIN change_log ON change_log.version >> 11 = block.n AND change_log.id = :id
WHERE object = :object AND version > :since ORDER BY version LIMIT :limit;

-- name: history
WITH RECURSIVE block (n) AS (
    SELECT (SELECT min(version) FROM change_log) >> 11
    UNION ALL
    SELECT n + 1 FROM block WHERE n < (SELECT max(version) FROM change_log) >> 11
)
SELECT version, object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at
FROM block CROSS JOIN change_log ON change_log.version >> 11 = block.n AND change_log.id = :id
WHERE object = :object ORDER BY version DESC LIMIT :limit;

-- name: newest
SELECT version, object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at
FROM change_log ORDER BY version DESC LIMIT :limit;

-- name: applied_at
SELECT applied_at FROM change_log WHERE version = ?;

-- name: forget_published
DELETE FROM change_published WHERE version <= ?;

-- name: trim
DELETE FROM change_log WHERE version <= ?;

-- name: forget_all
DELETE FROM change_log;
DELETE FROM change_block;
DELETE FROM change_published;
