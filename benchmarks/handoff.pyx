# cython: language_level=3, freethreading_compatible=True
"""The floor under a call into another thread: a Python object goes there and comes back, and nothing else.

The object is set before the lock is released, and the lock is released only without the GIL: whoever it wakes
can have the GIL at once.
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "pythread.h" nogil:
    ctypedef void *Lock "PyThread_type_lock"
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED

    Lock PyThread_allocate_lock()
    PyLockStatus PyThread_acquire_lock_timed(Lock, long long microseconds, int interruptible)
    void PyThread_release_lock(Lock)

cdef extern from "sched.h" nogil:
    int sched_yield()


cdef double seconds() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + 1e-9 * now.tv_nsec


cdef void wait(Lock lock) noexcept nogil:
    """Look for a release for 50 microseconds, then park until it comes."""
    cdef double end = seconds() + 50e-6
    while seconds() < end:
        if PyThread_acquire_lock_timed(lock, 0, 0) == PY_LOCK_ACQUIRED:
            return
        sched_yield()
    PyThread_acquire_lock_timed(lock, -1, 0)


cdef Lock taken() noexcept:
    cdef Lock lock = PyThread_allocate_lock()
    PyThread_acquire_lock_timed(lock, -1, 0)
    return lock


cdef class Handoff:
    """Call it with an object, while another thread is in `serve`: the object comes back."""

    cdef Lock given, returned
    cdef object there, back

    def __cinit__(self):
        self.given, self.returned = taken(), taken()

    def __call__(self, thing):
        self.there = thing
        with nogil:
            PyThread_release_lock(self.given)
            wait(self.returned)
        thing, self.back = self.back, None
        return thing

    def serve(self):
        with nogil:
            wait(self.given)
        while True:
            thing, self.there = self.there, None
            self.back, thing = thing, None
            with nogil:
                PyThread_release_lock(self.returned)
                wait(self.given)
