#include "common/env_real.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <ucontext.h>
#include <unistd.h>

static _Thread_local struct env_loop *current;

struct env_loop *env_real_current(void)
{
	return current;
}

bool env_loop_is_current(struct env_loop *loop)
{
	return current == loop;
}

/* ---- waking ---------------------------------------------------------------------------------------- */

static void write_wake(struct env_loop *l)
{
	uint64_t one = 1;
	ssize_t n = write(l->wake_fd, &one, sizeof one); /* full after 2^64 writes: it cannot fail */
	(void)n;
}

void env_loop_wake(struct env_loop *loop)
{
	/* Acquire-release: what the waker did before is seen by the turn that the loop's exchange starts. */
	if (atomic_exchange_explicit(&loop->state, LOOP_WOKEN, memory_order_acq_rel) == LOOP_SLEEPING)
		write_wake(loop);
}

void env_loop_stop(struct env_loop *loop)
{
	atomic_store_explicit(&loop->stopping, true, memory_order_release); /* pairs with the load in loop_turns */
	env_loop_wake(loop);
}

/* ---- signals ----------------------------------------------------------------------------------------- */

/*
 * Runs on the loop's thread, which alone has the signal unblocked among the loops. The main thread gets it too, since
 * nobody blocks signals there (those that no loop asked for keep their default effect): it then blocks this one for
 * itself and sends it anew, so that it finds the loop. So no global variable has to know which loop it is.
 */
static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)info;
	int saved = errno;
	if (current) {
		atomic_fetch_or_explicit(&current->signals_pending, UINT64_C(1) << signo, memory_order_relaxed);
		write_wake(current);
	} else {
		sigaddset(&((ucontext_t *)context)->uc_sigmask, signo);
		kill(getpid(), signo);
	}
	errno = saved;
}

int env_signal(struct env_loop *loop, int signo, void (*fn)(void *arg, int signo), void *arg)
{
	assert(env_loop_is_current(loop) && signo > 0 && signo < 64);
	struct signal_slot *s = malloc(sizeof *s);
	if (!s)
		return ERR_NOMEM;
	*s = (struct signal_slot){ .next = loop->signals, .signo = signo, .fn = fn, .arg = arg };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	sigfillset(&action.sa_mask);
	if (sigaction(signo, &action, NULL) < 0) {
		free(s);
		return env_real_errno(errno);
	}
	loop->signals = s;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signo);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return 0;
}

static void signals_run(struct env_loop *l)
{
	uint64_t pending = atomic_exchange_explicit(&l->signals_pending, 0, memory_order_relaxed);
	for (struct signal_slot *s = l->signals; s && pending; s = s->next)
		if (pending & UINT64_C(1) << s->signo)
			s->fn(s->arg, s->signo);
}

/* All but those that tell of a fault of the thread itself. SIGPIPE is blocked with the others. */
static void signals_block(sigset_t *old)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPROF };
	sigset_t set;
	sigfillset(&set);
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
		sigdelset(&set, faults[i]);
	pthread_sigmask(SIG_BLOCK, &set, old);
}

uint64_t env_loop_cpu_ns(struct env_loop *loop)
{
	struct timespec ts;
	clockid_t id;
	if (pthread_getcpuclockid(loop->thread, &id) != 0 || clock_gettime(id, &ts) < 0)
		return env_mono_ns(loop->env); /* it has ended, but for the join */
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- interrupting ------------------------------------------------------------------------------------ */

static void on_interrupt(int signo)
{
	(void)signo;
	struct env_loop *l = current;
	if (!l || atomic_load_explicit(&l->interrupting, memory_order_acquire) != INTERRUPT_SENT)
		return;
	void (*fn)(void *arg) = l->interrupt;
	void *arg = l->interrupt_arg;
	atomic_store_explicit(&l->interrupting, INTERRUPT_FREE,
			      memory_order_release); /* pairs with the sender's exchange */
	int saved = errno;
	fn(arg);
	errno = saved;
}

int env_loop_interrupt(struct env_loop *loop, void (*fn)(void *arg), void *arg)
{
	int expected = INTERRUPT_FREE;
	if (!fn)
		return 0;
	if (!atomic_compare_exchange_strong_explicit(&loop->interrupting, &expected, INTERRUPT_FILLING,
						     memory_order_acquire, memory_order_relaxed))
		return ERR_BUSY;
	loop->interrupt = fn;
	loop->interrupt_arg = arg;
	atomic_store_explicit(&loop->interrupting, INTERRUPT_SENT,
			      memory_order_release); /* pairs with the handler's load */
	pthread_kill(loop->thread, SIGRTMIN);
	return 0;
}

static void interrupt_accept(void)
{
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };
	sigset_t set;
	sigfillset(&action.sa_mask);
	sigaction(SIGRTMIN, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- the thread ---------------------------------------------------------------------------------------- */

static void on_wake_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_loop *l = arg;
	env_real_enter(l);
	if (atomic_load_explicit(&l->signals_pending, memory_order_relaxed))
		signals_run(l);
}

static void on_timer_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_loop *l = arg;
	l->armed_ns = ENV_NEVER;
}

/* A due time that moved to later is left as it is: one early turn is cheaper than a system call per turn. */
static void timer_arm(struct env_loop *l, uint64_t due_ns)
{
	if (due_ns >= l->armed_ns)
		return;
	struct itimerspec at = { .it_value = { .tv_sec = (time_t)(due_ns / 1000000000u),
					       .tv_nsec = (long)(due_ns % 1000000000u) } };
	timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
	l->armed_ns = due_ns;
}

void env_loop_poll(struct env_loop *loop, uint32_t us)
{
	assert(env_loop_is_current(loop));
	loop->poll_ns = us * UINT64_C(1000);
}

/* False: nothing came, the loop may sleep. */
static bool poll_some(struct env_loop *l, uint64_t due_ns)
{
	uint64_t now = env_mono_ns(l->env), end = now + l->poll_ns;
	l->awake = false;
	for (; now < end && now < due_ns; now = env_mono_ns(l->env)) {
		event_base_loop(l->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		if (l->awake || atomic_load_explicit(&l->state, memory_order_relaxed) != LOOP_RUNNING)
			return true;
	}
	return now >= due_ns;
}

static void loop_sleep(struct env_loop *l, uint64_t due_ns)
{
	int running = LOOP_RUNNING, flags = EVLOOP_ONCE;
	/* Release: pairs with the exchange of a waker that finds SLEEPING and then writes the eventfd. */
	if (due_ns == 0 || !atomic_compare_exchange_strong_explicit(&l->state, &running, LOOP_SLEEPING,
								    memory_order_acq_rel, memory_order_acquire))
		flags |= EVLOOP_NONBLOCK;
	else
		timer_arm(l, due_ns);
	l->awake = false;
	event_base_loop(l->base, flags);
	atomic_exchange_explicit(&l->state, LOOP_RUNNING, memory_order_acq_rel);
}

static void loop_turns(struct env_loop *l)
{
	for (;;) {
		uint64_t due_ns = l->ops->on_turn(l->arg);
		if (atomic_load_explicit(&l->stopping, memory_order_acquire))
			return;
		if (!l->poll_ns || !l->awake || !poll_some(l, due_ns))
			loop_sleep(l, due_ns);
	}
}

static void *loop_main(void *arg)
{
	struct env_loop *l = arg;
	while (sem_wait(&l->go) < 0)
		;
	current = l;
	interrupt_accept();
	l->ops->on_start(l->arg, l);
	loop_turns(l);
	if (l->ops->on_stop)
		l->ops->on_stop(l->arg);
	env_real_http_stop(l);
	env_real_http_stream_stop(l);
	return NULL;
}

/* ---- making and ending it ------------------------------------------------------------------------------- */

static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	if (!config)
		return NULL;
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
	struct event_base *base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

static void loop_free(struct env_loop *l)
{
	for (struct signal_slot *s = l->signals, *next; s; s = next) {
		next = s->next;
		signal(s->signo, SIG_DFL);
		free(s);
	}
	if (l->base)
		event_base_free(l->base);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	if (l->timer_fd >= 0)
		close(l->timer_fd);
	sem_destroy(&l->go);
	free(l);
}

static int watch_fd(struct env_loop *l, struct event *ev, int fd, event_callback_fn fn)
{
	if (fd < 0)
		return env_real_errno(errno);
	event_assign(ev, l->base, fd, EV_READ | EV_PERSIST | EV_ET, fn, l);
	return event_add(ev, NULL) < 0 ? env_real_errno(errno) : 0;
}

static int loop_init(struct env_loop *l)
{
	int err;
	if (!(l->base = base_new()))
		return ERR_NOMEM;
	if ((err = watch_fd(l, &l->wake_ev, l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_wake_fd)) < 0)
		return err;
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return watch_fd(l, &l->timer_ev, l->timer_fd, on_timer_fd);
}

/* The thread is born with signals blocked, so that none slips in before it could block them itself. */
static int thread_start(struct env_loop *l)
{
	sigset_t old;
	signals_block(&old);
	int number = pthread_create(&l->thread, NULL, loop_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return number ? env_real_errno(number) : 0;
}

int env_loop_start(struct env *env, const char *name, const struct env_loop_ops *ops, void *arg, struct env_loop **out)
{
	struct env_loop *l = calloc(1, sizeof *l);
	if (!l)
		return ERR_NOMEM;
	*l = (struct env_loop){
		.env = env,
		.ops = ops,
		.arg = arg,
		.armed_ns = ENV_NEVER,
		.wake_fd = -1,
		.timer_fd = -1,
		.awake = true,
	};
	sem_init(&l->go, 0, 0);
	snprintf(l->name, sizeof l->name, "%.15s", name);
	int err = loop_init(l);
	if (err == 0)
		err = thread_start(l);
	if (err < 0) {
		loop_free(l);
		return err;
	}
	pthread_setname_np(l->thread, l->name);
	*out = l;
	sem_post(&l->go);
	return 0;
}

void env_loop_join(struct env_loop *loop)
{
	assert(!env_loop_is_current(loop));
	pthread_join(loop->thread, NULL);
	loop_free(loop);
}
