// The part of OpenVINO's C API that is used, opened at run time: nothing links against one release of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace i2sb::openvino {

// As in openvino/c/ov_shape.h, ov_dimension.h, ov_partial_shape.h and ov_core.h.
struct Shape {
  int64_t rank;
  int64_t* dims;
};
struct Dimension {
  int64_t min, max;
};
struct PartialShape {
  Dimension rank;
  Dimension* dims;
};
struct Version {
  const char *build, *description;
};

using Status = int;       // 0 is success
using ElementType = int;  // taken from the model's ports: its values differ between releases
struct Core;
struct Model;
struct Compiled;
struct Request;
struct Tensor;
struct Port;

// The functions by their names in the library, less the prefix ov_.
struct Api {
  explicit Api(const std::string& library);  // throws a Failure: not found, or a release this was not tested with
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  // Throws what OpenVINO says if a call failed.
  void check(Status status, const char* doing) const;

  std::string release;

  Status (*get_openvino_version)(Version*);
  void (*version_free)(Version*);
  const char* (*get_last_err_msg)();
  void (*free)(const char*);
  Status (*core_create)(Core**);
  void (*core_free)(Core*);
  Status (*core_get_property)(const Core*, const char* device, const char* key, char** value);
  Status (*core_read_model)(const Core*, const char* path, const char* weights, Model**);
  Status (*core_read_model_from_memory_buffer)(const Core*, const char* bytes, size_t size, const Tensor* weights,
                                               Model**);
  Status (*core_compile_model)(const Core*, const Model*, const char* device, size_t property_args, Compiled**, ...);
  void (*model_free)(Model*);
  Status (*model_reshape)(const Model*, const char** names, const PartialShape*, size_t count);
  void (*compiled_model_free)(Compiled*);
  Status (*compiled_model_input_by_name)(const Compiled*, const char* name, Port**);
  Status (*compiled_model_output_by_name)(const Compiled*, const char* name, Port**);
  Status (*compiled_model_create_infer_request)(const Compiled*, Request**);
  Status (*port_get_element_type)(const Port*, ElementType*);
  void (*output_const_port_free)(Port*);
  Status (*tensor_create_from_host_ptr)(ElementType, Shape, void*, Tensor**);
  Status (*tensor_get_byte_size)(const Tensor*, size_t*);
  void (*tensor_free)(Tensor*);
  Status (*infer_request_set_tensor)(Request*, const char* name, const Tensor*);
  Status (*infer_request_infer)(Request*);
  void (*infer_request_free)(Request*);

 private:
  void* handle_;
};

}  // namespace i2sb::openvino
