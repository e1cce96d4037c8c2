package pgtest

import "encoding/json"

// Explain runs a statement and returns how many blocks it read and how long it took, in ms.
func (f *Fixture) Explain(sql string, args ...any) (blocks int, took float64) {
	f.t.Helper()
	conn, err := f.Admin.Acquire(f.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Release()
	var answer []byte
	for range 2 { // the first run also reads the functions and makes their plans
		if err := conn.QueryRow(f.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql,
			args...).Scan(&answer); err != nil {
			f.t.Fatal(err)
		}
	}
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
		Time float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal(answer, &plans); err != nil {
		f.t.Fatal(err)
	}
	return plans[0].Plan.Hit + plans[0].Plan.Read, plans[0].Time
}
