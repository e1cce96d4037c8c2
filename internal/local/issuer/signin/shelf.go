package signin

import (
	"crypto/rand"
	"time"
)

// shelf keeps values for a while, each under a key that nobody can guess. When it is full, the
// value that would end first makes room. Its users lock it.
type shelf[T any] struct {
	lasts time.Duration
	most  int
	items map[string]kept[T]
}

// kept is a value and when it ends.
type kept[T any] struct {
	value T
	ends  time.Time
}

func newShelf[T any](lasts time.Duration, most int) *shelf[T] {
	return &shelf[T]{lasts: lasts, most: most, items: map[string]kept[T]{}}
}

// add keeps a value and returns its key.
func (s *shelf[T]) add(value T) string {
	key := rand.Text()
	s.put(key, value)
	return key
}

// put keeps a value under a key.
func (s *shelf[T]) put(key string, value T) {
	s.makeRoom()
	s.items[key] = kept[T]{value, time.Now().Add(s.lasts)}
}

// makeRoom removes what has ended, and where that isn't enough, what ends first.
func (s *shelf[T]) makeRoom() {
	now, first := time.Now(), ""
	for key, item := range s.items {
		if now.After(item.ends) {
			delete(s.items, key)
		} else if first == "" || item.ends.Before(s.items[first].ends) {
			first = key
		}
	}
	if len(s.items) >= s.most {
		delete(s.items, first)
	}
}

// get returns the value of a key, unless it has ended.
func (s *shelf[T]) get(key string) (T, bool) {
	item, ok := s.items[key]
	if !ok || time.Now().After(item.ends) {
		var none T
		return none, false
	}
	return item.value, true
}

// take returns the value of a key and removes it, so that it is taken once.
func (s *shelf[T]) take(key string) (T, bool) {
	value, ok := s.get(key)
	delete(s.items, key)
	return value, ok
}

// drop removes the values that match.
func (s *shelf[T]) drop(matches func(T) bool) {
	for key, item := range s.items {
		if matches(item.value) {
			delete(s.items, key)
		}
	}
}
