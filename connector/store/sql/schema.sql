-- The whole schema as all migrations leave it (user_version 1); a test compares the two. A table per object is
-- made beside these when the object is first described (tables.py).

-- The change log, which is also the outbox of changes: a change is published once `version` is not above the
-- watermark in cursor 'published'.
CREATE TABLE change_log (
    version INTEGER PRIMARY KEY CHECK (version > 0),
    object TEXT NOT NULL,
    id TEXT NOT NULL,
    operation TEXT NOT NULL CHECK (operation IN ('create', 'update', 'delete', 'undelete')),
    changed TEXT NOT NULL,
    before TEXT,
    after TEXT,
    record TEXT,
    origin TEXT NOT NULL CHECK (origin IN ('stream', 'poll', 'backfill', 'repair', 'command')),
    command_id TEXT,
    committed_at TEXT,
    commit_number INTEGER,
    commit_user TEXT,
    commit_transaction TEXT,
    commit_sequence INTEGER,
    applied_at TEXT NOT NULL
) STRICT;

-- When the changes above the last entry, up to and with `version`, were acknowledged by the broker. Beside the log: a
-- column in it would have each row, with its pages, written a second time.
CREATE TABLE change_published (
    version INTEGER PRIMARY KEY,
    at TEXT NOT NULL
) STRICT;

-- What others read.
CREATE VIEW change AS
SELECT
    version, object, id, operation, changed, before, after, record, origin, command_id,
    committed_at, commit_number, commit_user, commit_transaction, commit_sequence, applied_at,
    (
        SELECT at FROM change_published
        WHERE change_published.version >= change_log.version ORDER BY change_published.version LIMIT 1
    ) AS published_at
FROM change_log;

-- Of one record, a block of 2,048 versions after the other: what is written lies in the newest block, and what is trimmed
-- in the oldest, on few pages, while an index by id alone has a page of its own for nearly every change. What the planner
-- is told (blocks, changes of one id in one) has it look into each block for `id = ?` instead of reading the log.
CREATE INDEX change_id ON change_log (version >> 11, id);
ANALYZE change_id;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('change_log', 'change_id', '1000000 2048 2');

-- The records that commands of ours made, for who asks of thousands at once.
CREATE INDEX change_made ON change_log (id) WHERE operation = 'create' AND command_id IS NOT NULL;

-- Which objects have changes in the 64 versions from 64 * `block` on; an index of the log by object would be one page
-- more to write with each change.
CREATE TABLE change_block (
    object TEXT NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY (object, block)
) STRICT, WITHOUT ROWID;

-- Every other message that must reach the mesh; due once the changes up to `after_version` are published.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    after_version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL CHECK (qos IN (0, 1, 2)),
    retain INTEGER NOT NULL CHECK (retain IN (0, 1)),
    content_type TEXT NOT NULL,
    correlation BLOB
) STRICT;
CREATE INDEX outbox_after ON outbox (after_version);

-- `change_version` is the change by which the command came back from the org; 0: none will come.
CREATE TABLE command (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    command_id TEXT NOT NULL UNIQUE,
    object TEXT NOT NULL,
    operation TEXT NOT NULL CHECK (operation IN ('create', 'update', 'upsert', 'delete')),
    record_id TEXT,
    record_of TEXT,
    external_id TEXT,
    fields TEXT NOT NULL,
    base TEXT,
    base_seq INTEGER,
    on_conflict TEXT NOT NULL CHECK (on_conflict IN ('reject', 'merge', 'overwrite')),
    sender TEXT,
    reply_to TEXT,
    correlation TEXT,
    correlation_data BLOB,
    delivery_key TEXT,
    status TEXT NOT NULL CHECK (
        status IN ('accepted', 'sending', 'succeeded', 'failed', 'conflict', 'rejected', 'expired', 'unknown')
    ),
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    answer_lost INTEGER NOT NULL CHECK (answer_lost IN (0, 1)),
    errors TEXT NOT NULL,
    conflict TEXT,
    sent TEXT,
    carried_by TEXT,
    ingest INTEGER,
    accepted_at TEXT NOT NULL,
    expires_at TEXT,
    sent_at TEXT,
    began_at TEXT,
    written_at TEXT,
    retry_at TEXT,
    completed_at TEXT,
    change_version INTEGER
) STRICT;
CREATE INDEX command_status ON command (status);
CREATE INDEX command_accepted ON command (object, accepted_at);
CREATE INDEX command_deletes ON command (object, accepted_at) WHERE operation = 'delete';
CREATE INDEX command_expiry ON command (expires_at) WHERE status = 'accepted' AND expires_at IS NOT NULL;
CREATE INDEX command_record ON command (record_id) WHERE record_id IS NOT NULL;
CREATE INDEX command_unseen ON command (record_id) WHERE change_version IS NULL AND record_id IS NOT NULL;
CREATE INDEX command_delivery ON command (delivery_key, accepted_at) WHERE delivery_key IS NOT NULL;
CREATE INDEX command_making ON command (object, sent_at) WHERE change_version IS NULL AND record_id IS NULL;
CREATE INDEX command_ingest ON command (ingest) WHERE ingest IS NOT NULL;
CREATE INDEX command_completed ON command (completed_at) WHERE completed_at IS NOT NULL;

-- The names of a command's record: its id, an external id, the command that makes it. Commands that share one wait for
-- each other while they are open (1).
CREATE TABLE command_key (
    seq INTEGER NOT NULL REFERENCES command (seq) ON DELETE CASCADE,
    key TEXT NOT NULL,
    open INTEGER NOT NULL CHECK (open IN (0, 1)),
    PRIMARY KEY (seq, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX command_key_open ON command_key (key, seq) WHERE open = 1;
CREATE INDEX command_key_any ON command_key (key, seq);

-- Bulk ingest jobs that carry commands (`command.ingest` is the number), until each of these is settled.
CREATE TABLE ingest_job (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    object TEXT NOT NULL,
    operation TEXT NOT NULL CHECK (operation IN ('create', 'update', 'upsert', 'delete')),
    external_id TEXT,
    job_id TEXT,
    opened_at TEXT
) STRICT;

CREATE TABLE cursor (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_usage (
    hour TEXT NOT NULL,
    purpose TEXT NOT NULL,
    calls INTEGER NOT NULL CHECK (calls >= 0),
    PRIMARY KEY (hour, purpose)
) STRICT, WITHOUT ROWID;

-- `replay_id` is Base64 of the opaque bytes.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    object TEXT,
    replay_id TEXT NOT NULL,
    error TEXT NOT NULL,
    event TEXT NOT NULL,
    quarantined_at TEXT NOT NULL,
    settled_at TEXT
) STRICT;
CREATE INDEX quarantine_open ON quarantine (id) WHERE settled_at IS NULL;

-- Records whose state in the org must be read again, in the order in which they were first marked.
CREATE TABLE dirty (
    seq INTEGER PRIMARY KEY,
    object TEXT NOT NULL,
    id TEXT NOT NULL,
    reason TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    quarantine_id INTEGER REFERENCES quarantine (id) ON DELETE SET NULL,
    UNIQUE (object, id)
) STRICT;
CREATE INDEX dirty_object ON dirty (object);
CREATE INDEX dirty_quarantine ON dirty (quarantine_id) WHERE quarantine_id IS NOT NULL;

CREATE TABLE hole (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    object TEXT NOT NULL,
    "from" TEXT NOT NULL,
    "to" TEXT,
    reason TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    corrected INTEGER NOT NULL DEFAULT 0 CHECK (corrected >= 0)
) STRICT;
CREATE UNIQUE INDEX hole_open ON hole (object) WHERE closed_at IS NULL;

-- The objects that have a table; `fields` is a JSON array of {"name", "kind", "searched", "looked_up"} in the order of the
-- columns. `search`: how far the text index is; the rows up to `search_row` are in it.
CREATE TABLE object (
    name TEXT PRIMARY KEY NOT NULL,
    table_name TEXT NOT NULL UNIQUE,
    key_prefix TEXT NOT NULL,
    fields TEXT NOT NULL,
    search TEXT NOT NULL DEFAULT 'none' CHECK (search IN ('none', 'filling', 'ready')),
    search_row INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Rows whose words an object's text index has not been told of yet: `indexed` are the texts that it holds for the row, a
-- JSON array in the order of its columns; null: none, the row is new.
CREATE TABLE late_text (
    object TEXT NOT NULL,
    row INTEGER NOT NULL,
    indexed TEXT,
    PRIMARY KEY (object, row)
) STRICT, WITHOUT ROWID;
