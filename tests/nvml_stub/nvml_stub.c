/* A driver library for tests: takes the place of libnvidia-ml.so.1 on a machine without a GPU.
 *
 * The real `pynvml` loads it and calls it through ctypes, so what is tested is what runs elsewhere. Structures and
 * names follow the declarations that `pynvml` makes. A test tells it what to answer, before the process starts through
 * the variable NVMLSTUB, or at any time through the functions `nvmlstub_*` of the library itself.
 *
 * The language of both (see `configure`), statements divided by ';' :
 *
 *     devices=2                        so many GPUs
 *     0.util=40                        a value of GPU 0; names in `values`
 *     CALL:err=15                      what every CALL answers; CALL is an NVML function, or * for all of them
 *     CALL@1:err=3,after=2,count=5     only of GPU 1, only the third to the seventh such call
 *     CALL:delay_us=200000             answers late
 *     CALL:hang=1                      does not answer until nvmlstub_clear
 *     CALL:crash=1                     ends the process with SIGSEGV
 *     CALL:abort=1                     ends the process with SIGABRT
 *
 * A library without some function, as of an old driver, is built with -Dname=omitted_name for each of them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long long u64;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15, ARGUMENT_VERSION_MISMATCH = 25
};
enum { MAX_GPUS = 16, MAX_INSTANCES = 7, MAX_RULES = 64, MAX_CALLS = 64, MAX_PROCESSES = 64, NAME_SIZE = 64 };
static const unsigned NO_INSTANCE = 0xffffffffu;

/* ---- state -------------------------------------------------------------------------------------------------- */

struct process { unsigned pid; u64 memory; unsigned percent; };

struct device {                       /* a GPU or a MIG instance; its address is the handle */
    int number;                       /* of the GPU, whatever its index is now */
    struct device *parent;            /* of a MIG instance */
    int instance;                     /* number within the parent; of a GPU -1 */
    u64 gone, lost, util, memory_util, total, used, reserved, power_mw, temperature, sm_mhz, memory_mhz, reasons, ecc;
    u64 mig_mode, mig_capable, instances, bad_name, bad_uuid, energy_mj;
    struct timespec energy_at;        /* up to when energy_mj counts */
    struct process processes[MAX_PROCESSES];
    unsigned process_count;
};

struct rule { char call[NAME_SIZE]; int gpu, err, hang, crash, abort; long delay_us, after, count, seen; };
struct call { const char *name; long total, by_gpu[MAX_GPUS]; };

static struct device gpus[MAX_GPUS];
static struct device instances[MAX_GPUS][MAX_INSTANCES];
static int gpu_count = 1;
static int users;                     /* nvmlInit less nvmlShutdown */
static struct rule rules[MAX_RULES];
static int rule_count;
static struct call calls[MAX_CALLS];
static int call_count;
static unsigned cleared;              /* goes up with every nvmlstub_clear, which ends what hangs */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t on_clear = PTHREAD_COND_INITIALIZER;

static void forked(void) {            /* as the driver has it: a child has to initialise for itself */
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&on_clear, NULL);
    users = 0;
}

static int is_gpu_there(int number) { return number >= 0 && number < gpu_count && !gpus[number].gone; }

static struct device *gpu_at(unsigned index) {
    for (int i = 0; i < gpu_count; i++)
        if (is_gpu_there(i) && index-- == 0) return &gpus[i];
    return NULL;
}

static unsigned index_of(const struct device *d) {
    unsigned index = 0;
    for (int i = 0; i < d->number; i++) index += is_gpu_there(i);
    return index;
}

static unsigned count_gpus(void) {
    unsigned n = 0;
    for (int i = 0; i < gpu_count; i++) n += is_gpu_there(i);
    return n;
}

static void uuid_of(const struct device *d, char *out, size_t size) {
    if (d->bad_uuid) snprintf(out, size, "GPU-\xff\xfe-%d", d->number);
    else if (d->parent) snprintf(out, size, "MIG-00000000-0000-0000-%04d-%012d", d->instance + 1, d->number);
    else snprintf(out, size, "GPU-00000000-0000-0000-0000-%012d", d->number);
}

static void count_energy(struct device *d) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (now.tv_sec - d->energy_at.tv_sec) + (now.tv_nsec - d->energy_at.tv_nsec) / 1e9;
    u64 more = (u64)(seconds * d->power_mw);
    if (more) { d->energy_mj += more; d->energy_at = now; }
}

/* ---- what a test tells it ------------------------------------------------------------------------------------ */

static const struct { const char *name; size_t at; } values[] = {
#define VALUE(field) { #field, offsetof(struct device, field) }
    VALUE(gone), VALUE(lost), VALUE(util), VALUE(memory_util), VALUE(total), VALUE(used), VALUE(reserved),
    VALUE(power_mw), VALUE(temperature), VALUE(sm_mhz), VALUE(memory_mhz), VALUE(reasons), VALUE(ecc),
    VALUE(mig_mode), VALUE(mig_capable), VALUE(instances), VALUE(bad_name), VALUE(bad_uuid), VALUE(energy_mj),
#undef VALUE
};

static int set_value(struct device *d, const char *name, u64 value) {
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (!strcmp(values[i].name, name)) {
            count_energy(d);          /* up to now with the power there was */
            *(u64 *)((char *)d + values[i].at) = value;
            return 0;
        }
    return -1;
}

static int add_rule(char *call, char *what) {
    struct rule rule = { .gpu = -1, .count = -1 };
    char *at = strchr(call, '@'), *rest = NULL;
    if (at) { *at = 0; rule.gpu = atoi(at + 1); }
    snprintf(rule.call, sizeof rule.call, "%s", call);
    for (char *part = strtok_r(what, ",", &rest); part; part = strtok_r(NULL, ",", &rest)) {
        char *number = strchr(part, '=');
        if (!number) return -1;
        *number++ = 0;
        if (!strcmp(part, "err")) rule.err = atoi(number);
        else if (!strcmp(part, "hang")) rule.hang = atoi(number);
        else if (!strcmp(part, "crash")) rule.crash = atoi(number);
        else if (!strcmp(part, "abort")) rule.abort = atoi(number);
        else if (!strcmp(part, "delay_us")) rule.delay_us = atol(number);
        else if (!strcmp(part, "after")) rule.after = atol(number);
        else if (!strcmp(part, "count")) rule.count = atol(number);
        else return -1;
    }
    if (rule_count == MAX_RULES) return -1;
    rules[rule_count++] = rule;
    return 0;
}

static int one_statement(char *statement) {
    char *colon = strchr(statement, ':'), *dot = strchr(statement, '.'), *equals = strchr(statement, '=');
    if (colon) { *colon = 0; return add_rule(statement, colon + 1); }
    if (!equals) return -1;
    *equals++ = 0;
    if (!strcmp(statement, "devices")) {
        gpu_count = atoi(equals);
        if (gpu_count < 0 || gpu_count > MAX_GPUS) gpu_count = MAX_GPUS;
        return 0;
    }
    if (!dot) return -1;
    int number = atoi(statement);
    return number < 0 || number >= MAX_GPUS ? -1 : set_value(&gpus[number], dot + 1, strtoull(equals, NULL, 0));
}

static int configure(const char *text) {
    char *copy = strdup(text), *rest = NULL;
    int wrong = 0;
    for (char *part = strtok_r(copy, ";", &rest); part; part = strtok_r(NULL, ";", &rest)) wrong |= one_statement(part);
    free(copy);
    return wrong;
}

static void reset(void) {
    gpu_count = 1;
    rule_count = 0;
    for (int i = 0; i < MAX_GPUS; i++) {
        gpus[i] = (struct device){
            .number = i, .instance = -1, .util = 40 + i, .memory_util = 20, .total = 80ULL << 30, .used = 10ULL << 30,
            .reserved = 512ULL << 20, .power_mw = 250000, .temperature = 55, .sm_mhz = 1410, .memory_mhz = 1593,
            .mig_capable = 1, .energy_mj = 1000000,
        };
        clock_gettime(CLOCK_MONOTONIC, &gpus[i].energy_at);
        for (int k = 0; k < MAX_INSTANCES; k++)
            instances[i][k] = (struct device){ .number = i, .parent = &gpus[i], .instance = k, .total = 10ULL << 30,
                                               .used = (u64)(k + 1) << 30 };
    }
}

__attribute__((constructor)) static void loaded(void) {
    const char *text = getenv("NVMLSTUB");
    reset();
    pthread_atfork(NULL, NULL, forked);
    if (text && configure(text)) fprintf(stderr, "NVMLSTUB is not understood: %s\n", text);
}

#define LOCKED(...) do { pthread_mutex_lock(&lock); __VA_ARGS__; pthread_mutex_unlock(&lock); } while (0)

/* More statements. Not 0: one of them was not understood. */
int nvmlstub_configure(const char *text) { int wrong; LOCKED(wrong = configure(text)); return wrong; }

/* Forget all rules; what hangs goes on. Values and devices stay. */
void nvmlstub_clear(void) { LOCKED(rule_count = 0; cleared++; pthread_cond_broadcast(&on_clear)); }

/* As if it had just been loaded, without what NVMLSTUB said, calls and users forgotten. */
void nvmlstub_reset(void) {
    LOCKED(reset(); cleared++; pthread_cond_broadcast(&on_clear); users = 0;
           for (int i = 0; i < call_count; i++) calls[i] = (struct call){ .name = calls[i].name });
}

/* How often a function was called (NULL: all of them), of one GPU and its instances (-1: whatever of). */
long nvmlstub_calls(const char *name, int gpu) {
    long n = 0;
    LOCKED(for (int i = 0; i < call_count; i++)
               if (!name || !strcmp(name, calls[i].name)) n += gpu < 0 ? calls[i].total : calls[i].by_gpu[gpu]);
    return n;
}

/* The names of the functions called so far with how often, "name=3\n" each. */
void nvmlstub_called(char *out, size_t size) {
    size_t used = 0;
    if (size) *out = 0;
    LOCKED(for (int i = 0; i < call_count && used < size; i++)
               if (calls[i].total)
                   used += (size_t)snprintf(out + used, size - used, "%s=%ld\n", calls[i].name, calls[i].total));
}

/* The processes on a GPU (instance -1) or one of its instances. A memory of all ones: not available. */
void nvmlstub_processes(int gpu, int instance, unsigned n, const unsigned *pid, const u64 *memory,
                        const unsigned *percent) {
    struct device *d = instance < 0 ? &gpus[gpu] : &instances[gpu][instance];
    if (n > MAX_PROCESSES) n = MAX_PROCESSES;
    LOCKED(d->process_count = n;
           for (unsigned i = 0; i < n; i++) d->processes[i] = (struct process){ pid[i], memory[i], percent[i] });
}

/* Give up every nvmlInit that anybody has made: what another library in the process may do. */
void nvmlstub_foreign_shutdown(void) { LOCKED(users = 0); }

/* nvmlInit less nvmlShutdown. */
int nvmlstub_users(void) { int n; LOCKED(n = users); return n; }

/* ---- every call comes through here --------------------------------------------------------------------------- */

static struct call *call_named(const char *name) {
    for (int i = 0; i < call_count; i++)
        if (!strcmp(calls[i].name, name)) return &calls[i];
    if (call_count == MAX_CALLS) abort();
    calls[call_count].name = name;
    return &calls[call_count++];
}

static void rest_us(long us) {
    struct timespec left = { us / 1000000, us % 1000000 * 1000 };
    while (nanosleep(&left, &left) && errno == EINTR) { }
}

static int gate(struct call **site, const char *name, const struct device *d, int needs_init) {
    int err = 0, crash = 0, aborts = 0, hang = 0;
    long delay = 0;
    pthread_mutex_lock(&lock);
    if (!*site) *site = call_named(name);
    (*site)->total++;
    if (d) (*site)->by_gpu[d->number]++;
    for (int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        if ((strcmp(r->call, "*") && strcmp(r->call, name)) || (r->gpu >= 0 && (!d || d->number != r->gpu))) continue;
        long seen = r->seen++;
        if (seen < r->after || (r->count >= 0 && seen >= r->after + r->count)) continue;
        delay += r->delay_us;
        crash |= r->crash;
        aborts |= r->abort;
        hang |= r->hang;
        if (!err) err = r->err;
    }
    for (unsigned at = cleared; hang && at == cleared;) pthread_cond_wait(&on_clear, &lock);
    if (!err && needs_init && !users) err = UNINITIALIZED;
    if (!err && d && (d->gone || (d->parent && d->parent->gone))) err = INVALID_ARGUMENT;
    if (!err && d && (d->lost || (d->parent && d->parent->lost))) err = GPU_IS_LOST;
    pthread_mutex_unlock(&lock);
    if (delay) rest_us(delay);
    if (crash) { signal(SIGSEGV, SIG_DFL); raise(SIGSEGV); }
    if (aborts) abort();
    return err;
}

static int is_handle(const void *h) {
    const struct device *d = h, *first = &instances[0][0];
    return (d >= gpus && d < gpus + MAX_GPUS) || (d >= first && d < first + MAX_GPUS * MAX_INSTANCES);
}

#define GATE(d, needs_init) do { \
        static struct call *site; \
        int e = gate(&site, __func__, d, needs_init); \
        if (e) return e; \
    } while (0)
#define LIBRARY() GATE(NULL, 1)
#define DEVICE(h) struct device *d = (h); if (!is_handle(h)) return users ? INVALID_ARGUMENT : UNINITIALIZED; GATE(d, 1)
#define GPU_ONLY(h) DEVICE(h); if (d->parent) return NOT_SUPPORTED

static int give_text(char *out, unsigned size, const char *text) {
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return OK;
}

/* ---- NVML: the library --------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags) { (void)flags; GATE(NULL, 0); LOCKED(users++); return OK; }
int nvmlShutdown(void) { LIBRARY(); LOCKED(users--); return OK; }

const char *nvmlErrorString(int code) {
    static char text[48];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) { LIBRARY(); return give_text(out, size, "999.00"); }
int nvmlSystemGetNVMLVersion(char *out, unsigned size) { return give_text(out, size, "13.999.00"); }

/* ---- NVML: which devices there are --------------------------------------------------------------------------- */

int nvmlDeviceGetCount_v2(unsigned *count) { LIBRARY(); *count = count_gpus(); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    struct device *d = gpu_at(index);
    GATE(d, 1);
    if (!d) return INVALID_ARGUMENT;
    *handle = d;
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    char text[96];
    struct device *found = NULL;
    for (int i = 0; i < gpu_count; i++) {
        if (!is_gpu_there(i)) continue;
        uuid_of(&gpus[i], text, sizeof text);
        if (!strcmp(text, uuid)) found = &gpus[i];
        for (u64 k = 0; gpus[i].mig_mode && k < gpus[i].instances; k++) {
            uuid_of(&instances[i][k], text, sizeof text);
            if (!strcmp(text, uuid)) found = &instances[i][k];
        }
    }
    GATE(found, 1);
    if (!found) return NOT_FOUND;
    *handle = found;
    return OK;
}

int nvmlDeviceGetIndex(void *h, unsigned *index) {
    DEVICE(h);
    *index = d->parent ? (unsigned)d->instance : index_of(d);
    return OK;
}

int nvmlDeviceGetName(void *h, char *out, unsigned size) {
    DEVICE(h);
    if (d->bad_name) return give_text(out, size, "Stub \xff\xfe");
    return give_text(out, size, d->parent ? "Stub GPU MIG 1g.10gb" : "Stub GPU");
}

int nvmlDeviceGetUUID(void *h, char *out, unsigned size) {
    char text[96];
    DEVICE(h);
    uuid_of(d, text, sizeof text);
    return give_text(out, size, text);
}

struct pci_info { char legacy_id[16]; unsigned domain, bus, device, pci_id, subsystem_id; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *h, struct pci_info *info) {
    DEVICE(h);
    *info = (struct pci_info){ .bus = (unsigned)d->number + 1, .pci_id = 0x20b010de };
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", d->number + 1);
    snprintf(info->legacy_id, sizeof info->legacy_id, "0000:%02X:00.0", d->number + 1);
    return OK;
}

/* ---- NVML: MIG ------------------------------------------------------------------------------------------------ */

int nvmlDeviceGetMigMode(void *h, unsigned *current, unsigned *pending) {
    GPU_ONLY(h);
    if (!d->mig_capable) return NOT_SUPPORTED;
    *current = *pending = (unsigned)d->mig_mode;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(void *h, unsigned *count) {
    GPU_ONLY(h);
    *count = d->mig_capable ? MAX_INSTANCES : 0;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *h, unsigned index, void **handle) {
    GPU_ONLY(h);
    if (index >= MAX_INSTANCES) return INVALID_ARGUMENT;
    if (!d->mig_mode || index >= d->instances) return NOT_FOUND;
    *handle = &instances[d->number][index];
    return OK;
}

int nvmlDeviceIsMigDeviceHandle(void *h, unsigned *is) { DEVICE(h); *is = d->parent != NULL; return OK; }

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *h, void **handle) {
    DEVICE(h);
    if (!d->parent) return INVALID_ARGUMENT;
    *handle = d->parent;
    return OK;
}

/* ---- NVML: values of a device ---------------------------------------------------------------------------------- */

struct utilization { unsigned gpu, memory; };
struct memory_v1 { u64 total, free, used; };
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };
struct temperature_v1 { unsigned version, sensor; int celsius; };

/* A structure says its size and version in its first word. */
#define VERSION(number, type) (((unsigned)(number) << 24) | sizeof(type))
_Static_assert(VERSION(2, struct memory_v2) == 0x02000028, "as pynvml has it");
_Static_assert(VERSION(1, struct temperature_v1) == 0x0100000C, "as pynvml has it");

int nvmlDeviceGetUtilizationRates(void *h, struct utilization *out) {
    GPU_ONLY(h);
    if (d->mig_mode) return NOT_SUPPORTED;
    *out = (struct utilization){ (unsigned)d->util, (unsigned)d->memory_util };
    return OK;
}

int nvmlDeviceGetMemoryInfo(void *h, struct memory_v1 *out) {
    DEVICE(h);                        /* this one counts as used what the driver keeps for itself */
    *out = (struct memory_v1){ d->total, d->total - d->used - d->reserved, d->used + d->reserved };
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(void *h, struct memory_v2 *out) {
    DEVICE(h);
    if (out->version != VERSION(2, struct memory_v2)) return ARGUMENT_VERSION_MISMATCH;
    out->total = d->total;
    out->reserved = d->reserved;
    out->used = d->used;
    out->free = d->total - d->used - d->reserved;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(void *h, u64 *out) {
    GPU_ONLY(h);
    LOCKED(count_energy(d); *out = d->energy_mj);
    return OK;
}

int nvmlDeviceGetPowerUsage(void *h, unsigned *out) { GPU_ONLY(h); *out = (unsigned)d->power_mw; return OK; }

int nvmlDeviceGetTemperature(void *h, unsigned sensor, unsigned *out) {
    GPU_ONLY(h);
    if (sensor) return INVALID_ARGUMENT;
    *out = (unsigned)d->temperature;
    return OK;
}

int nvmlDeviceGetTemperatureV(void *h, struct temperature_v1 *out) {
    GPU_ONLY(h);
    if (out->version != VERSION(1, struct temperature_v1)) return ARGUMENT_VERSION_MISMATCH;
    out->celsius = (int)d->temperature;
    return OK;
}

int nvmlDeviceGetClockInfo(void *h, unsigned clock, unsigned *out) {
    GPU_ONLY(h);
    if (clock > 3) return INVALID_ARGUMENT;
    *out = (unsigned)(clock == 2 ? d->memory_mhz : d->sm_mhz);
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *h, u64 *out) { GPU_ONLY(h); *out = d->reasons; return OK; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *h, u64 *out) { GPU_ONLY(h); *out = d->reasons; return OK; }

int nvmlDeviceGetTotalEccErrors(void *h, unsigned kind, unsigned counter, u64 *out) {
    GPU_ONLY(h);
    if (kind > 1 || counter > 1) return INVALID_ARGUMENT;
    *out = kind == 1 && counter == 0 ? d->ecc : 0;  /* all that are not corrected came since the driver was loaded */
    return OK;
}

/* ---- NVML: processes ------------------------------------------------------------------------------------------- */

struct process_info { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; };
struct process_utilization { unsigned pid; u64 at; unsigned sm, memory, encoder, decoder; };
_Static_assert(sizeof(struct process_info) == 24, "as pynvml has it");
_Static_assert(sizeof(struct process_utilization) == 32, "as pynvml has it");

static int give_processes(struct device *d, unsigned *count, struct process_info *out) {
    int result = OK;
    pthread_mutex_lock(&lock);
    if (d->process_count && (!out || *count < d->process_count)) result = INSUFFICIENT_SIZE;
    else
        for (unsigned i = 0; i < d->process_count; i++)
            out[i] = (struct process_info){ d->processes[i].pid, d->processes[i].memory, NO_INSTANCE, NO_INSTANCE };
    *count = d->process_count;
    pthread_mutex_unlock(&lock);
    return result;
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *h, unsigned *count, struct process_info *out) {
    DEVICE(h);
    return give_processes(d, count, out);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *count, struct process_info *out) {
    DEVICE(h);
    return give_processes(d, count, out);
}


int nvmlDeviceGetProcessUtilization(void *h, struct process_utilization *out, unsigned *count, u64 since) {
    struct timespec now;
    int result = OK;
    GPU_ONLY(h);
    if (d->mig_mode) return NOT_SUPPORTED;
    clock_gettime(CLOCK_REALTIME, &now);
    u64 at = (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
    pthread_mutex_lock(&lock);
    if (!d->process_count || at <= since) result = NOT_FOUND;  /* how the driver says: nothing new */
    else if (!out || *count < d->process_count) result = INSUFFICIENT_SIZE;
    else
        for (unsigned i = 0; i < d->process_count; i++)
            out[i] = (struct process_utilization){ d->processes[i].pid, at, d->processes[i].percent, 5, 0, 0 };
    *count = d->process_count;
    pthread_mutex_unlock(&lock);
    return result;
}
