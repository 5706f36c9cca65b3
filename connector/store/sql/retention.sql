-- name: oldest_published
SELECT version, applied_at FROM change_log WHERE version <= :published ORDER BY version LIMIT :limit;

-- name: trim_commands
DELETE FROM command WHERE seq IN (
    SELECT seq FROM command WHERE completed_at IS NOT NULL AND completed_at < :before LIMIT :limit
);

-- name: trim_quarantine
DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine WHERE settled_at < :before LIMIT :limit);

-- name: trim_holes
DELETE FROM hole WHERE id IN (SELECT id FROM hole WHERE closed_at < :before LIMIT :limit);

-- name: trim_api_usage
DELETE FROM api_usage WHERE (hour, purpose) IN (SELECT hour, purpose FROM api_usage WHERE hour < :before LIMIT :limit);
