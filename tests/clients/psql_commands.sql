SELECT 1 /* id:@one */;
SELECT * FROM item WHERE id <= 10 /* id:@ten */;
SELECT 1/0 /* id:@zero */;
BEGIN /* id:@begin */;
UPDATE item SET name = 'x' WHERE id = 1 /* id:@update */;
ROLLBACK /* id:@rollback */;
\echo for people only
SELECT 1 /* id:@first */\; SELECT 2 /* id:@second */;
COPY item TO STDOUT /* id:@copy */;
SELECT generate_series(1, 200000), repeat('x', 100) /* id:@large */;
