// Runs the network of an AOTInductor package, without Python: what `i2sb-rt export NAME.safetensors -o NAME.pt2`
// writes.
//   network NAME.pt2                                         tells what the package says of itself
//   network NAME.pt2 X.f32 BATCH HEIGHT WIDTH TIME OUT.f32   one call; X and OUT hold raw float32, [batch, channel,
//   row, column]
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

torch::Tensor read(const std::string& path, at::IntArrayRef shape) {
  torch::Tensor x = torch::empty(shape, torch::kFloat32);
  std::ifstream file(path, std::ios::binary);
  file.read(static_cast<char*>(x.data_ptr()), static_cast<std::streamsize>(x.nbytes()));
  if (!file || file.peek() != EOF) throw std::runtime_error(path + " does not hold as many numbers as it should");
  return x;
}

void write(const std::string& path, const torch::Tensor& x) {
  const torch::Tensor plain = x.contiguous();
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(plain.data_ptr()), static_cast<std::streamsize>(plain.nbytes()));
  if (!file.flush()) throw std::runtime_error(path + " cannot be written");
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() != 1 && arguments.size() != 7) {
    std::cerr << "usage: network NAME.pt2 [X.f32 BATCH HEIGHT WIDTH TIME OUT.f32]\n";
    return 2;
  }
  torch::inductor::AOTIModelPackageLoader loader(arguments[0]);
  const auto about = loader.get_metadata();
  if (arguments.size() == 1) {
    for (const auto& [key, value] : about) std::cout << key << " " << value << "\n";
    return 0;
  }
  const int64_t batch = std::stoll(arguments[2]), height = std::stoll(arguments[3]), width = std::stoll(arguments[4]);
  const int64_t multiple = std::stoll(about.at("i2sb.multiple"));
  if (height % multiple || width % multiple)
    throw std::runtime_error("height and width must be multiples of " + about.at("i2sb.multiple"));
  const int64_t channels = std::stoll(about.at("i2sb.channels")) * (about.at("i2sb.cond_x1") == "1" ? 2 : 1);
  const torch::Tensor x = read(arguments[1], {batch, channels, height, width});
  const torch::Tensor t = torch::full({batch}, std::stof(arguments[5]));
  write(arguments[6], loader.run({x, t}).at(0));
  return 0;
}

}  // namespace

int main(int count, char** values) {
  try {
    return run({values + 1, values + count});
  } catch (const std::exception& error) {
    std::cerr << "network: " << error.what() << "\n";
    return 1;
  }
}
