// pgx with every sslmode; then what it does besides: statements that it prepares, a batch, COPY, failures, a
// transaction, cancelling, a login by SCRAM. With arguments, a statement to a server that one root vouches for, and
// nothing else: pgx_commands ROOT STATEMENT.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

var prefix = os.Getenv("VLAB_PREFIX") + "pgx-"

type fields map[string]interface{}

func mark(name, text string) string {
	return fmt.Sprintf("%s /* id:%s%s */", text, prefix, name)
}

func did(name string, statement string, more fields) {
	line := fields{"id": prefix + name, "statement": statement}
	for key, value := range more {
		line[key] = value
	}
	text, err := json.Marshal(line)
	must(err)
	fmt.Println(string(text))
}

func must(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func assert(holds bool, what string) {
	if !holds {
		log.Output(2, what)
		os.Exit(1)
	}
}

func connect(settings string) *pgx.Conn {
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	conn, err := pgx.Connect(ctx, settings)
	must(err)
	return conn
}

// What the server says of its own connection: that is the agent's leg.
func modes() {
	const query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
	ask := func(name, settings string, tls bool) {
		conn := connect(settings)
		text := mark(name, query)
		var upstream bool
		must(conn.QueryRow(context.Background(), text).Scan(&upstream))
		did(name, text, fields{"op": "execute", "rows": 1})
		// Never less upstream than toward the client.
		assert(upstream || !tls, name+": the server's leg is without TLS")
		must(conn.Close(context.Background()))
	}
	for _, mode := range []string{"disable", "allow", "prefer", "require"} {
		ask(mode, "sslmode="+mode, mode == "prefer" || mode == "require")
	}
	roots := " sslrootcert=" + os.Getenv("VLAB_ROOTS")
	for _, mode := range []string{"verify-ca", "verify-full"} {
		ask(mode, "sslmode="+mode+roots, true)
	}
	// By what Go's own library trusts: SSL_CERT_FILE.
	ask("system", "sslmode=verify-full", true)
}

func commands() {
	ctx := context.Background()
	conn := connect("sslmode=require")
	defer conn.Close(ctx)

	text := mark("prepared", "SELECT name FROM item WHERE id = $1")
	for id := 1; id <= 3; id++ {
		var name string
		must(conn.QueryRow(ctx, text, id).Scan(&name))
		assert(name == fmt.Sprintf("item %d", id), "another name: "+name)
		did("prepared", text, fields{"op": "execute", "rows": 1, "parameters": []string{fmt.Sprint(id)}})
	}

	text = mark("simple", "SELECT 1")
	_, err := conn.Exec(ctx, text, pgx.QuerySimpleProtocol(true))
	must(err)
	did("simple", text, fields{"rows": 1})

	batch := &pgx.Batch{}
	texts := []string{mark("batch-0", "SELECT $1::text"), mark("batch-1", "SELECT count(*) FROM item WHERE id < $1")}
	batch.Queue(texts[0], "in one go")
	batch.Queue(texts[1], 4)
	results := conn.SendBatch(ctx, batch)
	var word string
	var count int
	must(results.QueryRow().Scan(&word))
	must(results.QueryRow().Scan(&count))
	must(results.Close())
	assert(word == "in one go" && count == 3, "the batch answered otherwise")
	did("batch-0", texts[0], fields{"op": "execute", "rows": 1, "parameters": []string{"in one go"}})
	did("batch-1", texts[1], fields{"op": "execute", "rows": 1, "parameters": []string{"4"}})

	text = mark("fails", "SELECT $1::int4 / 0")
	_, err = conn.Exec(ctx, text, 1)
	var failure *pgconn.PgError
	assert(errors.As(err, &failure), "a division by zero succeeded")
	did("fails", text, fields{"op": "execute", "status": "error", "sqlstate": failure.Code})

	tx, err := conn.Begin(ctx)
	must(err)
	text = mark("insert", "INSERT INTO item VALUES ($1, $2)")
	_, err = tx.Exec(ctx, text, 8001, "from Go")
	must(err)
	did("insert", text, fields{"op": "execute", "rows": 1, "parameters": []string{"8001", "from Go"}})
	must(tx.Rollback(ctx))

	text = mark("copy", "COPY (SELECT id FROM item) TO STDOUT")
	tag, err := conn.PgConn().CopyTo(ctx, os.Stderr, text)
	must(err)
	did("copy", text, fields{"rows": tag.RowsAffected()})
}

// pgx asks on a connection of its own, without TLS whatever the first one had.
func cancels() {
	ctx := context.Background()
	conn := connect("sslmode=require")
	text := mark("sleep", "SELECT pg_sleep(600)")
	ended := make(chan bool)
	go func() {
		// Only what is running can be cancelled: asked again until it is.
		for {
			select {
			case <-ended:
				return
			case <-time.After(300 * time.Millisecond):
				must(conn.PgConn().CancelRequest(ctx))
			}
		}
	}()
	_, err := conn.Exec(ctx, text)
	ended <- true
	var failure *pgconn.PgError
	assert(errors.As(err, &failure), "it was not cancelled")
	did("sleep", text, fields{"status": "error", "sqlstate": failure.Code})
	must(conn.Close(ctx))
}

// pgx binds no channel.
func scram() {
	ctx := context.Background()
	for _, mode := range []string{"disable", "require"} {
		conn := connect("user=clerk password='secret of the clerk' sslmode=" + mode)
		text := mark("scram-"+mode, "SELECT current_user::text")
		var user string
		must(conn.QueryRow(ctx, text).Scan(&user))
		assert(user == "clerk", "it is "+user)
		did("scram-"+mode, text, fields{"op": "execute", "rows": 1})
		must(conn.Close(ctx))
	}
	_, err := pgx.Connect(ctx, "user=clerk password=wrong sslmode=require")
	assert(err != nil, "a wrong password was taken")
}

func main() {
	log.SetFlags(log.Lshortfile)
	if len(os.Args) > 2 {
		conn := connect("sslmode=verify-full sslrootcert=" + os.Args[1])
		_, err := conn.Exec(context.Background(), os.Args[2])
		must(err)
		must(conn.Close(context.Background()))
		return
	}
	modes()
	commands()
	cancels()
	scram()
}
