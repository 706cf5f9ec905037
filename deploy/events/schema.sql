-- Where the events go. PostgreSQL's image runs this once, with psql, when it makes the database.
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- within a conversation in the order in which they happened
    sender_id text NOT NULL,
    digest bytea NOT NULL, -- of the event, by which one that comes again is known
    event text NOT NULL,
    happened_at timestamptz NOT NULL,
    body jsonb NOT NULL,
    UNIQUE (sender_id, digest)
);
CREATE INDEX ON events (happened_at);

-- What is no event that PostgreSQL can keep, as it came, for somebody to look at.
CREATE TABLE refused (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    body bytea NOT NULL
);

-- The consumer adds, and neither reads nor changes.
\set password `cat /run/secrets/events_postgresql_password`
CREATE ROLE events LOGIN PASSWORD :'password';
GRANT INSERT ON events, refused TO events;
