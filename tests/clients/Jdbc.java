// The JDBC driver with every sslmode; then what it does besides: statements that the server keeps, a batch, failures,
// a transaction, cancelling, a login by SCRAM with the channel bound and without. `Jdbc direct`: TLS at once.
// `Jdbc bound`: only logins that insist on a bound channel.
// `Jdbc ROOT STATEMENT`: a statement to a server that one root vouches for, and nothing else.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

class Jdbc {
    static final String PREFIX = System.getenv("VLAB_PREFIX") + "jdbc-";
    static final String DIRECT = "direct";

    static String mark(String name, String text) {
        return text + " /* id:" + PREFIX + name + " */";
    }

    static void did(String name, String statement, String more) {
        System.out.println("{\"id\":\"" + PREFIX + name + "\",\"statement\":\"" + statement
                + "\",\"op\":\"execute\"," + more + "}");
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new IllegalStateException(what);
        }
    }

    static Connection connect(String... settings) throws SQLException {
        var all = new Properties();
        all.put("user", System.getenv("PGUSER"));
        for (int at = 0; at < settings.length; at += 2) {
            all.put(settings[at], settings[at + 1]);
        }
        var url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/"
                + System.getenv("PGDATABASE");
        return DriverManager.getConnection(url, all);
    }

    // What the server says of its own connection: that is the agent's leg.
    static void ask(String name, boolean tls, String... settings) throws SQLException {
        var text = mark(name, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
        try (var connection = connect(settings); var statement = connection.createStatement();
                var rows = statement.executeQuery(text)) {
            check(rows.next(), name);
            // Never less upstream than toward the client.
            check(rows.getBoolean(1) || !tls, name + ": the server's leg is without TLS");
        }
        did(name, text, "\"rows\":1");
    }

    static void modes() throws SQLException {
        for (var mode : new String[] {"disable", "allow", "prefer", "require"}) {
            ask(mode, mode.equals("prefer") || mode.equals("require"), "sslmode", mode);
        }
        var roots = System.getenv("VLAB_ROOTS");
        for (var mode : new String[] {"verify-ca", "verify-full"}) {
            ask(mode, true, "sslmode", mode, "sslrootcert", roots);
        }
        // By what Java itself trusts: the trust store that its options name.
        var factory = "org.postgresql.ssl.DefaultJavaSSLFactory";
        ask("store", true, "sslmode", "verify-full", "sslfactory", factory);
    }

    static void direct() throws SQLException {
        ask("direct", true, "sslmode", "require", "sslNegotiation", DIRECT);
        var roots = System.getenv("VLAB_ROOTS");
        ask("direct-verified", true, "sslmode", "verify-full", "sslrootcert", roots, "sslNegotiation", DIRECT);
    }

    static void commands() throws SQLException {
        try (var connection = connect("sslmode", "require", "prepareThreshold", "2")) {
            var text = mark("prepared", "SELECT name FROM item WHERE id = ?");
            var sent = text.replace("?", "$1");
            try (var statement = connection.prepareStatement(text)) {
                for (int id = 1; id <= 4; id++) {
                    statement.setInt(1, id);
                    try (var rows = statement.executeQuery()) {
                        check(rows.next() && rows.getString(1).equals("item " + id), "another name");
                    }
                    did("prepared", sent, "\"rows\":1,\"parameters\":[\"" + id + "\"]");
                }
            }
            fails(connection);
            inserts(connection);
        }
    }

    static void fails(Connection connection) throws SQLException {
        var text = mark("fails", "SELECT 1 / 0");
        try (var statement = connection.createStatement()) {
            statement.executeQuery(text);
            check(false, "a division by zero succeeded");
        } catch (SQLException failure) {
            did("fails", text, "\"status\":\"error\",\"sqlstate\":\"" + failure.getSQLState() + "\"");
        }
    }

    static void inserts(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        var text = mark("batch", "INSERT INTO item (id, name) VALUES (?, ?)");
        var sent = text.replace("(?, ?)", "($1, $2)");
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int id = 9001; id <= 9003; id++) {
                statement.setLong(1, id);
                statement.setString(2, "from Java");
                statement.addBatch();
            }
            check(statement.executeBatch().length == 3, "the batch is not whole");
        }
        for (int id = 9001; id <= 9003; id++) {
            did("batch", sent, "\"rows\":1,\"parameters\":[\"" + id + "\",\"from Java\"]");
        }
        connection.rollback();
    }

    static void cancels() throws Exception {
        try (var connection = connect("sslmode", "require"); Statement statement = connection.createStatement()) {
            var text = mark("sleep", "SELECT pg_sleep(600)");
            var ended = new CountDownLatch(1);
            var asks = new Thread(() -> {
                try {
                    // Only what is running can be cancelled: asked again until it is.
                    while (!ended.await(300, TimeUnit.MILLISECONDS)) {
                        statement.cancel();
                    }
                } catch (SQLException | InterruptedException failure) {
                    failure.printStackTrace();
                }
            });
            asks.start();
            try {
                statement.executeQuery(text);
                check(false, "it was not cancelled");
            } catch (SQLException failure) {
                did("sleep", text, "\"status\":\"error\",\"sqlstate\":\"" + failure.getSQLState() + "\"");
            } finally {
                ended.countDown();
                asks.join();
            }
        }
    }

    static void logIn(String name, String mode, String binding) throws SQLException {
        var text = mark(name, "SELECT current_user");
        try (var connection = connect("user", "clerk", "password", "secret of the clerk", "sslmode", mode,
                "channelBinding", binding); var statement = connection.createStatement();
                var rows = statement.executeQuery(text)) {
            check(rows.next() && rows.getString(1).equals("clerk"), "it is somebody else");
        }
        did(name, text, "\"rows\":1");
    }

    static void refused(String password, String binding, String expected) {
        try (var connection = connect("user", "clerk", "password", password, "sslmode", "require", "channelBinding",
                binding)) {
            check(false, "it was let in, bound: " + binding);
        } catch (SQLException failure) {
            System.out.println(binding + ": " + failure.getMessage());
            check(failure.getMessage().contains(expected), failure.getMessage());
        }
    }

    static void scram() throws SQLException {
        logIn("scram-plain", "disable", "disable");
        logIn("scram-tls", "require", "disable");
        // The driver's own default: it binds the channel where it can.
        logIn("scram-bound", "require", "prefer");
        refused("wrong", "disable", "password authentication failed");
        // A channel that ends here is not the server's.
        refused("secret of the clerk", "require", "");
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0 && arguments[0].equals(DIRECT)) {
            direct();
            return;
        }
        if (arguments.length > 0 && arguments[0].equals("bound")) {
            logIn("bound", "require", "require");
            refused("wrong", "require", "password authentication failed");
            return;
        }
        if (arguments.length == 2) {
            try (var connection = connect("sslmode", "verify-full", "sslrootcert", arguments[0]);
                    var statement = connection.createStatement()) {
                statement.execute(arguments[1]);
            }
            return;
        }
        modes();
        commands();
        cancels();
        scram();
    }
}
