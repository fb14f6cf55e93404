#include "openvino_api.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "failure.hpp"

namespace i2sb::openvino {
namespace {

// Releases whose C API this code was tested with.
constexpr const char* TESTED = "2026.";

// OpenVINO in the Python package beside ours, where this library is the one of .../i2sb_rt/sdk/lib; else "". No other
// folder is looked into: anyone might write there.
std::string installed_beside() {
  namespace fs = std::filesystem;
  Dl_info self{};
  if (!dladdr(&TESTED, &self) || !self.dli_fname) return "";
  std::error_code failed;
  const fs::path sdk = fs::canonical(self.dli_fname, failed).parent_path().parent_path(), package = sdk.parent_path();
  if (failed || sdk.filename() != "sdk" || package.filename() != "i2sb_rt") return "";
  std::string newest;
  for (const fs::path& file : fs::directory_iterator(package.parent_path() / "openvino" / "libs", failed))
    if (file.filename().string().starts_with("libopenvino_c.so")) newest = std::max(newest, file.string());
  return newest;
}

void* open_library(const std::string& named) {
  const std::string library = named.empty() ? installed_beside() : named;
  if (!library.empty()) {
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) fail(I2SB_ERROR_ENGINE, "OpenVINO cannot be opened: " + std::string(dlerror()));
    return handle;
  }
  if (void* handle = dlopen("libopenvino_c.so", RTLD_NOW | RTLD_LOCAL)) return handle;
  fail(I2SB_ERROR_ENGINE,
       "OpenVINO was not found: install it (pip install openvino) or name its libopenvino_c.so in I2SB_RT_OPENVINO");
}

}  // namespace

Api::Api(const std::string& library) : handle_(open_library(library)) {
  const auto bind = [&](auto& function, const char* name) {
    void* address = dlsym(handle_, name);
    if (!address) fail(I2SB_ERROR_ENGINE, "this OpenVINO lacks " + std::string(name) + ": a 2026 release is needed");
    std::memcpy(&function, &address, sizeof address);
  };
  try {
    // The symbols have no versions: what a program is linked with would answer the calls of the library opened here.
    const void* host = dlsym(RTLD_DEFAULT, "get_openvino_version");
    const void* own = dlsym(handle_, "get_openvino_version");
    if (host && own && host != own)
      fail(I2SB_ERROR_ENGINE,
           "this program is linked with another OpenVINO: name its libopenvino_c.so in I2SB_RT_OPENVINO");
#define I2SB_BIND(name) bind(name, "ov_" #name)
    I2SB_BIND(get_openvino_version);
    I2SB_BIND(version_free);
    Version version{};
    if (get_openvino_version(&version) != 0) fail(I2SB_ERROR_ENGINE, "OpenVINO does not tell its release");
    release = version.build ? version.build : "";
    version_free(&version);
    if (release.rfind(TESTED, 0) != 0)
      fail(I2SB_ERROR_ENGINE, "OpenVINO " + release + " was not tested with this library: a 2026 release is needed");
    I2SB_BIND(get_last_err_msg);
    I2SB_BIND(free);
    I2SB_BIND(core_create);
    I2SB_BIND(core_free);
    I2SB_BIND(core_get_property);
    I2SB_BIND(core_read_model);
    I2SB_BIND(core_read_model_from_memory_buffer);
    I2SB_BIND(core_compile_model);
    I2SB_BIND(model_free);
    I2SB_BIND(model_reshape);
    I2SB_BIND(compiled_model_free);
    I2SB_BIND(compiled_model_input_by_name);
    I2SB_BIND(compiled_model_output_by_name);
    I2SB_BIND(compiled_model_create_infer_request);
    I2SB_BIND(port_get_element_type);
    I2SB_BIND(output_const_port_free);
    I2SB_BIND(tensor_create_from_host_ptr);
    I2SB_BIND(tensor_get_byte_size);
    I2SB_BIND(tensor_free);
    I2SB_BIND(infer_request_set_tensor);
    I2SB_BIND(infer_request_infer);
    I2SB_BIND(infer_request_free);
#undef I2SB_BIND
  } catch (...) {
    dlclose(handle_);
    throw;
  }
}

// The library stays loaded: OpenVINO's threads may outlive the last object made from it.
Api::~Api() = default;

void Api::check(Status status, const char* doing) const {
  if (status == 0) return;
  const char* reason = get_last_err_msg();
  fail(I2SB_ERROR_ENGINE, std::string("OpenVINO failed ") + doing + ": " +
                              (reason && *reason ? reason : ("status " + std::to_string(status)).c_str()));
}

}  // namespace i2sb::openvino
