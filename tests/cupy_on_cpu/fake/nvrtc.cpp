// NVRTC: the source of kernels becomes a library, by g++. Libraries are kept on disk.
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "fakecuda.h"

uint64_t fc_hash(const std::string& s, uint64_t h) {
    for (unsigned char c : s) h = (h ^ c) * 1099511628211ull;
    return h;
}
std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string((std::istreambuf_iterator<char>(in)), {});
}
std::string cache_folder() {
    const char* where = getenv("FAKECUDA_CACHE");
    std::string cache = where ? where : "fakecuda_cache";
    mkdir(cache.c_str(), 0777);
    return cache;
}
extern const char FC_PTX[] = "// PTX of cupy_on_cpu: the name of a file\n//\n";
extern const char FC_MAGIC[8] = {'F', 'A', 'K', 'E', 'C', 'U', 'B', '1'};

struct Program {
    std::string source, name, log, image, ptx;
    std::vector<std::pair<std::string, std::string>> headers;
    std::vector<std::string> expressions;
    std::map<std::string, std::string> lowered;
};
static std::string own_folder() {
    Dl_info info;
    dladdr((void*)own_folder, &info);
    char path[4096];
    std::string p = realpath(info.dli_fname, path) ? path : info.dli_fname;
    return p.substr(0, p.rfind('/'));
}
API const char* nvrtcGetErrorString(int e) {
    switch (e) {
        case 0: return "NVRTC_SUCCESS";
        case 6: return "NVRTC_ERROR_COMPILATION";
        default: return "NVRTC_ERROR";
    }
}
API int nvrtcVersion(int* major, int* minor) {
    *major = cuda_version() / 1000;
    *minor = cuda_version() % 1000 / 10;
    return 0;
}
API int nvrtcGetNumSupportedArchs(int* n) {
    *n = 3;
    return 0;
}
API int nvrtcGetSupportedArchs(int* a) {
    a[0] = 75;
    a[1] = 80;
    a[2] = 90;
    return 0;
}
API int nvrtcCreateProgram(
    void** out, const char* src, const char* name, int n, const char** headers, const char** names_) {
    auto p = new Program;
    p->source = src;
    p->name = name ? name : "";
    for (int i = 0; i < n; i++) p->headers.push_back({names_[i], headers[i]});
    *out = p;
    return 0;
}
API int nvrtcDestroyProgram(void** p) {
    delete (Program*)*p;
    *p = nullptr;
    return 0;
}
API int nvrtcAddNameExpression(void* p, const char* e) {
    ((Program*)p)->expressions.push_back(e);
    return 0;
}
API int nvrtcGetLoweredName(void* p, const char* e, const char** out) {
    auto& m = ((Program*)p)->lowered;
    if (!m.count(e)) return 10;
    *out = m[e].c_str();
    return 0;
}
static std::string without_comments(const std::string& s) {
    std::string out;
    for (size_t i = 0; i < s.size(); i++) {
        if (s.compare(i, 2, "//") == 0) {
            while (i < s.size() && s[i] != '\n') i++;
            out += '\n';
        } else if (s.compare(i, 2, "/*") == 0) {
            i = s.find("*/", i + 2);
            if (i == std::string::npos) break;
            i++;
            out += ' ';
        } else
            out += s[i];
    }
    return out;
}
static int run_command(std::vector<std::string> args, const std::string& err) {
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(&a[0]);
    argv.push_back(nullptr);
    std::vector<char*> env;  // without what makes a program ours
    for (char** e = environ; *e; e++)
        if (strncmp(*e, "LD_PRELOAD=", 11) && strncmp(*e, "LD_LIBRARY_PATH=", 16)) env.push_back(*e);
    env.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    pid_t pid;
    int e = posix_spawnp(&pid, argv[0], &files, nullptr, argv.data(), env.data());
    posix_spawn_file_actions_destroy(&files);
    if (e) return -1;
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
API int nvrtcCompileProgram(void* prog, int n, const char** options) {
    auto p = (Program*)prog;
    std::string own = own_folder();
    std::vector<std::string> flags;
    std::string std_flag = "-std=c++17", contract = "-ffp-contract=fast";
    for (int i = 0; i < n; i++) {
        std::string o = options[i];
        auto starts = [&](const char* s) { return o.rfind(s, 0) == 0; };
        if (starts("-I") || starts("-D") || starts("-U")) {
            flags.push_back(o);
            if (o.size() == 2 && i + 1 < n) flags.push_back(options[++i]);
        } else if (starts("--include-path="))
            flags.push_back("-I" + o.substr(15));
        else if (starts("--define-macro="))
            flags.push_back("-D" + o.substr(15));
        else if (starts("--std=") || starts("-std="))
            std_flag = "-std=" + o.substr(o.find('=') + 1);
        else if (o == "-fmad=false" || o == "--fmad=false" || o == "--use_fast_math=false")
            contract = "-ffp-contract=off";
    }
    if (std_flag == "-std=c++11" || std_flag == "-std=c++14" || std_flag == "-std=c++03")
        std_flag = "-std=c++17";  // for our header
    std::string code = without_comments(p->source);
    // extern __shared__ T name[];  is a view of one memory
    code = std::regex_replace(code,
        std::regex(
            R"(extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w:<>\s]+?)\s+(\w+)\s*\[\s*\]\s*;)"),
        "$1* const $2 = reinterpret_cast<$1*>(fc_vars.dyn);");
    std::set<std::string> found;
    std::regex kernel(
        R"((template\s*<[^;{]*>\s*)?(?:extern\s*"C"\s*)?__global__\s+(?:static\s+|inline\s+)*(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\()");
    std::vector<std::string> kernels;
    for (std::sregex_iterator at(code.begin(), code.end(), kernel), end; at != end; ++at)
        if (!(*at)[1].matched && found.insert((*at)[2]).second) kernels.push_back((*at)[2]);
    bool whole = code.find("CUPY_FOR") != std::string::npos;
    for (auto word : {"threadIdx", "blockIdx", "blockDim", "gridDim", "__shared__", "__sync", "__shfl"})
        if (code.find(word) != std::string::npos) whole = false;
    bool cupy = code.find("<cupy/carray.cuh>") != std::string::npos;
    std::string text = cupy ? "#include \"fakecuda_cupy.h\"\n" : "#include \"fakecuda_device.h\"\n";
    text += "#line 1 \"" + (p->name.empty() ? "kernel.cu" : p->name) + "\"\n" + code + "\n";
    std::string table;
    int number = 0;
    for (auto& k : kernels) {
        text += "FC_KERNEL(" + std::to_string(number) + ", " + k + ")\n";
        table += "FC_ENTRY(" + std::to_string(number++) + ", \"" + k + "\", " + (whole ? "1" : "0") + "),\n";
    }
    for (auto& e : p->expressions) {
        std::string low = "fc_expression_" + std::to_string(number);
        text += "FC_KERNEL(" + std::to_string(number) + ", FC_COMMA(" + e + "))\n";
        table += "FC_ENTRY(" + std::to_string(number++) + ", \"" + low + "\", 0),\n";
        p->lowered[e] = low;
    }
    text += "static const FCKernel fc_kernels[] = {\n" + table + "{}};\n";
    text += "extern \"C\" __attribute__((visibility(\"default\"))) FCTable fc_table;\n";
    text += "FCTable fc_table = {&fc_vars, &fc_api, fc_kernels, " + std::to_string(number) + "};\n";

    std::vector<std::string> command = {"g++", std_flag, "-O1", "-march=x86-64-v3", contract,
        "-fno-strict-aliasing", "-w", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique",
        "-I" + own + "/include"};
    if (const char* more = getenv("FAKECUDA_CXXFLAGS")) {
        std::istringstream in(more);
        for (std::string w; in >> w;) command.push_back(w);
    }
    command.insert(command.end(), flags.begin(), flags.end());
    std::string all = text;
    for (auto& c : command) all += "\n" + c;
    for (auto& h : p->headers) all += h.first + h.second;
    static std::string ours = read_file(own + "/include/fakecuda_device.h") +
                              read_file(own + "/include/fakecuda_cupy.h") +
                              read_file(own + "/include/cuda_fp16.h");
    char key[40];
    snprintf(
        key, sizeof key, "%016lx%016lx", fc_hash(all + ours), fc_hash(ours + all, 1099511628211ull * 77));
    std::string base = cache_folder() + "/" + key, so = base + ".so",
                mine = base + "." + std::to_string(getpid()) + "." + std::to_string(random());
    std::string bytes = read_file(so);
    if (bytes.empty()) {
        fc_count(FC_COMPILE, kernels.empty() ? "" : kernels[0]);
        std::string folder = mine + ".d";
        if (!p->headers.empty()) {
            mkdir(folder.c_str(), 0777);
            for (auto& h : p->headers) {
                std::string path = folder + "/" + h.first;
                for (size_t i = folder.size() + 1; (i = path.find('/', i)) != std::string::npos; i++)
                    mkdir(path.substr(0, i).c_str(), 0777);
                std::ofstream(path) << h.second;
            }
            command.push_back("-I" + folder);
        }
        std::ofstream(mine + ".cpp") << text;
        command.insert(command.end(), {mine + ".cpp", "-o", mine + ".so"});
        int status = run_command(command, mine + ".err");
        std::string err = read_file(mine + ".err");
        if (status != 0) {
            p->log = err;
            if (env_on("FAKECUDA_VERBOSE"))
                fprintf(stderr, "[fakecuda] %s\n%s\n", (mine + ".cpp").c_str(), err.c_str());
            unlink((mine + ".err").c_str());
            return 6;
        }
        bytes = read_file(mine + ".so");
        unlink((mine + ".err").c_str());
        rename((mine + ".cpp").c_str(), (base + ".cpp").c_str());
        rename((mine + ".so").c_str(), so.c_str());
    }
    uint64_t size = bytes.size();
    p->image.assign(FC_MAGIC, 8);
    p->image.append((char*)&size, 8);
    p->image += bytes;
    p->ptx = std::string(FC_PTX) + so + "\n";
    return 0;
}
static int give(const std::string& s, char* out) {
    memcpy(out, s.data(), s.size());
    return 0;
}
API int nvrtcGetPTXSize(void* p, size_t* n) {
    *n = ((Program*)p)->ptx.size() + 1;
    return 0;
}
API int nvrtcGetPTX(void* p, char* out) {
    out[((Program*)p)->ptx.size()] = 0;
    return give(((Program*)p)->ptx, out);
}
API int nvrtcGetCUBINSize(void* p, size_t* n) {
    *n = ((Program*)p)->image.size();
    return 0;
}
API int nvrtcGetCUBIN(void* p, char* out) { return give(((Program*)p)->image, out); }
API int nvrtcGetLTOIRSize(void* p, size_t* n) {
    *n = 0;
    return 1;
}
API int nvrtcGetLTOIR(void*, char*) { return 1; }
API int nvrtcGetProgramLogSize(void* p, size_t* n) {
    *n = ((Program*)p)->log.size() + 1;
    return 0;
}
API int nvrtcGetProgramLog(void* p, char* out) {
    memcpy(out, ((Program*)p)->log.c_str(), ((Program*)p)->log.size() + 1);
    return 0;
}
