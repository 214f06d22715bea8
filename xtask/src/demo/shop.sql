-- The demo's database: a small shop, a role for reports, and one for an agent that may read and correct
-- orders, and delete nothing.
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL, city text NOT NULL);
CREATE TABLE purchase (
    id int PRIMARY KEY, customer int NOT NULL REFERENCES customer, item text NOT NULL, amount numeric(10, 2) NOT NULL
);
INSERT INTO customer VALUES
    (1, 'Ada Moreau', 'ada@example.org', 'Lyon'), (2, 'Bo Lindqvist', 'bo@example.org', 'Malmö'),
    (3, 'Chidi Eze', 'chidi@example.org', 'Lagos'), (4, 'Dana Levi', 'dana@example.org', 'Lyon');
INSERT INTO purchase VALUES
    (1, 1, 'lamp', 42.00), (2, 2, 'desk', 310.00), (3, 3, 'chair', 120.50), (4, 4, 'lamp', 42.00), (5, 1, 'desk', 310.00);
-- The report logs in with a person's own user, as reports do.
CREATE ROLE "chidi@demo.example" LOGIN;
GRANT SELECT ON customer, purchase TO "chidi@demo.example";
CREATE ROLE agent LOGIN;
GRANT SELECT ON customer, purchase TO agent;
GRANT UPDATE (amount) ON purchase TO agent;
