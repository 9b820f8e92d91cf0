-- Answers that nobody asks for any more are looked for by their age among those of clients (dbwriter/replay_forget.c), not among
-- the business keys, which are kept and are most of the table.
CREATE INDEX IF NOT EXISTS once_by_age ON loquat_once (client, created_us);
