-- What tells another body under the same key apart, by once_fingerprint of rpc/once.h. 0: it is not known. Rows from before have
-- fingerprint instead, by a function that is no more; a repeat of theirs is answered whatever its body is. Rows of today have 0
-- there, so that a process of before, which goes on for a while, takes them alike.
ALTER TABLE loquat_once ADD COLUMN IF NOT EXISTS body_fingerprint BIGINT NOT NULL DEFAULT 0;
