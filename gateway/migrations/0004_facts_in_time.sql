-- Which row of some facts was in force at a moment is looked up for each record: one step in this.
DROP INDEX facts_id;
CREATE INDEX facts_id ON facts (id, since);
