-- The beginning of a text, by which it is searched, with long runs of characters cut into pieces.
--
-- A word that grows when it is folded to lower case can exceed the length of a lexeme (2046 bytes).
-- PostgreSQL stores it cut inside a character, and the dump of such a document cannot be restored.
-- A piece of 255 characters does not reach that length, whatever the folding. Besides, the time in
-- which a run is split into hosts, paths and addresses is quadratic in its length.
CREATE OR REPLACE FUNCTION searched_text(content text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN octet_length(content) <= 255 THEN content
                ELSE regexp_replace(left(content, 16384), '[^ \t\n\v\f\r]{255}', '\& ', 'g') END;
