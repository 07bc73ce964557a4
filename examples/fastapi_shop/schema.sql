CREATE TABLE IF NOT EXISTS users (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id integer NOT NULL REFERENCES users,
    placed_on date NOT NULL DEFAULT current_date,
    status text NOT NULL DEFAULT 'new'
);
CREATE TABLE IF NOT EXISTS reports (day date PRIMARY KEY, orders integer NOT NULL);
CREATE TABLE IF NOT EXISTS problems (task_id bigint PRIMARY KEY, problem text NOT NULL);
