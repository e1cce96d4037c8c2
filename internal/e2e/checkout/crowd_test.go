package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/allo/reservations/internal/pgtest"
)

// dice are random numbers for many goroutines.
type dice struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func (d *dice) roll(sides int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(sides)
}

// oneIn is true once in n times.
func (d *dice) oneIn(n int) bool { return d.roll(n) == 0 }

// webhook is a webhook that the provider has yet to send. tries counts how often it was sent.
type webhook struct {
	payment, kind string
	tries         int
}

// post is the provider's queue of webhooks. It sends them in any order.
type post struct {
	dice    *dice
	mu      sync.Mutex
	changed *sync.Cond
	waiting []webhook
	late    []webhook // wait until all customers are gone
	shut    bool      // the customers are gone
	lost    int       // webhooks that were given up, or never sent
}

func newPost(d *dice) *post {
	p := &post{dice: d}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// put queues a webhook: late, twice, or not at all.
func (p *post) put(hook webhook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch fortune := p.dice.roll(10); {
	case hook.tries == mostTries || hook.tries == 0 && fortune == 0:
		p.lost++
	case fortune < 3 && !p.shut:
		p.late = append(p.late, hook)
	case fortune < 5:
		p.waiting = append(p.waiting, hook, hook)
	default:
		p.waiting = append(p.waiting, hook)
	}
	p.changed.Broadcast()
}

// shutDown lets the late webhooks go. The customers are gone.
func (p *post) shutDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.late, p.shut = append(p.waiting, p.late...), nil, true
	p.changed.Broadcast()
}

// take waits for a webhook. It returns false when no more will come.
func (p *post) take() (webhook, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) == 0 {
		if p.shut {
			return webhook{}, false
		}
		p.changed.Wait()
	}
	i := p.dice.roll(len(p.waiting))
	hook := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	return hook, true
}

// crowd is many customers at once.
type crowd struct {
	*world
	dice *dice
	post *post
	mu   sync.Mutex
	errs []error
}

func (c *crowd) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

// The calls of the shop fail at random, and the shop dies during some. The stock is scarce, so that
// many payments that come late are lost. The seed repeats what happens, but not the order in which
// the goroutines do it.
func TestEachPaymentOfACrowdIsKeptOrRefundedOnce(t *testing.T) {
	t.Parallel()
	t.Logf("-seed %d", *seed)
	d := &dice{rand: rand.New(rand.NewPCG(*seed, 1))}
	c := &crowd{world: newWorld(t, build(t, source(t))), dice: d, post: newPost(d)}
	for range 3 {
		c.stock(20)
	}
	c.setFaults(func(*http.Request) fault {
		switch n := d.roll(100); {
		case n < 4:
			return refuse
		case n < 8:
			return loseAnswer
		case n < 9:
			return crashBefore
		case n < 11:
			return crashAfter
		}
		return none
	})
	c.run(60)
	c.setFaults(func(*http.Request) fault { return none })
	for _, p := range c.provider.list() {
		c.tellUntilTaken(p.ID, p.State)
	}
	for _, problem := range c.judge() {
		t.Error(problem)
	}
	for _, err := range c.errs {
		t.Error(err)
	}
	fates := map[string]int{}
	for _, p := range c.provider.list() {
		fates[c.fate(p)]++
	}
	t.Logf("the payments are %v, their outcomes are %v; the shop was killed %d times, and %d "+
		"webhooks were lost", fates, c.outcomeCounts(), c.shop.killed(), c.post.lost)
	if fates["kept"] == 0 || fates["refunded"] == 0 || c.shop.killed() == 0 {
		t.Errorf("the payments are %v and the shop was killed %d times, want some of each", fates,
			c.shop.killed())
	}
}

// run lets so many customers order, six at once, while four workers send the webhooks.
func (c *crowd) run(customers int) {
	var workers, queue sync.WaitGroup
	for range 4 {
		workers.Go(c.send)
	}
	numbers := make(chan int)
	for range 6 {
		queue.Go(func() {
			for n := range numbers {
				c.customer(n)
			}
		})
	}
	for n := range customers {
		numbers <- n
	}
	close(numbers)
	queue.Wait()
	c.post.shutDown()
	workers.Wait()
}

// send sends webhooks until none is left. Some come again although the shop has taken them.
func (c *crowd) send() {
	for {
		hook, ok := c.post.take()
		if !ok {
			return
		}
		if !c.tell(hook.payment, hook.kind, c.shop.shop.CallerSecret) || c.dice.oneIn(4) {
			hook.tries++
			c.post.put(hook)
		}
	}
}

// customer orders and then does one of many things.
func (c *crowd) customer(n int) {
	units := map[int]int{c.dice.roll(3): 1 + c.dice.roll(2)}
	if c.dice.oneIn(2) {
		units[c.dice.roll(3)] = 1
	}
	o := c.cart(fmt.Sprint("order ", n), units)
	first, refusal := c.checkOut(o, 1)
	if refusal != "" {
		if refusal != "INSUFFICIENT_STOCK" {
			c.report(fmt.Errorf("order %d is refused: %s", n, refusal))
		}
		return
	}
	switch c.dice.roll(9) {
	case 0:
		c.pay(first)
	case 1: // goes away, and the hold may die
		c.leave(first)
		return
	case 2:
		c.decline(first)
		second, _ := c.checkOut(o, 2)
		c.pay(second)
		c.put(first, captured) // about the wrong attempt
	case 3:
		second, _ := c.checkOut(o, 2)
		c.pay(second)
		c.pay(first)
	case 4: // the bank pays after all
		c.decline(first)
		c.pay(first)
	case 5:
		c.die(first)
		c.pay(first)
	case 6:
		c.pay(first)
		c.die(first)
	case 7:
		c.die(first)
		second, _ := c.checkOut(o, 2)
		c.pay(first)
		c.pay(second)
	case 8:
		c.resolve(first, "cancel")
		c.pay(first)
	}
	c.resolve(first, "release")
	if c.dice.oneIn(3) {
		if _, err := c.service.Sweep(c.t.Context()); err != nil {
			c.report(err)
		}
	}
}

// put queues a webhook about a payment, if there is one.
func (c *crowd) put(payment, kind string) {
	if payment != "" {
		c.post.put(webhook{payment: payment, kind: kind})
	}
}

func (c *crowd) pay(payment string) {
	c.provider.capture(payment)
	c.put(payment, captured)
}

// decline lets the bank refuse a payment.
func (c *crowd) decline(payment string) {
	c.provider.fail(payment)
	c.put(payment, failed)
}

// leave gives an order up.
func (c *crowd) leave(payment string) {
	if c.dice.oneIn(2) {
		c.die(payment)
	}
	c.decline(payment)
}

// die lets the hold of a payment die, unless it was resolved.
func (c *crowd) die(payment string) {
	hold, err := uuid.Parse(c.provider.hold(payment))
	if err == nil {
		err = pgtest.KillHold(c.t.Context(), c.db.Admin, hold)
	}
	var deadlock *pgconn.PgError
	if err != nil && !strings.Contains(err.Error(), "isn't PENDING") &&
		(!errors.As(err, &deadlock) || deadlock.Code != "40P01") {
		c.report(err)
	}
}

// resolve tries to give the units of a payment's hold back. The shopper may not while it is paid,
// and nobody may when it was sold.
func (c *crowd) resolve(payment, verb string) {
	code := c.act(payment, verb)
	if code != "" && code != "PAYMENT_STARTED" && code != "RESERVATION_CONFIRMED" {
		c.report(fmt.Errorf("%s of the hold of %s is refused: %s", verb, payment, code))
	}
}

// outcomeCounts counts what the service has kept of the payments.
func (w *world) outcomeCounts() map[string]int {
	counts := map[string]int{}
	for _, o := range w.outcomes() {
		counts[o.Outcome]++
	}
	return counts
}
